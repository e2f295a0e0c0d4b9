"""A flood of one kind of datagram, at full speed or at a rate: python -m tests.support.flood -h.

The sender's namespace must own the addresses (`ip route add local NETWORK dev lo`).
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from itertools import cycle
from struct import pack

from wgpy.constants import (
    COOKIE_REPLY_SIZE,
    INITIATION_SIZE,
    MAC_SIZE,
    MESSAGE_COOKIE_REPLY,
    MESSAGE_INITIATION,
    MESSAGE_TRANSPORT,
)
from wgpy.keys import PublicKey
from wgpy.net.binding import IP_PKTINFO
from wgpy.net.sending import UDP_SEGMENT
from wgpy.noise.cookie import CookieStamp

POOL = 4096  # different datagrams of a kind
BURST = 8  # datagrams a source sends at once
TICK = 0.001  # seconds: a rate is kept by sleeping for no less


def forged_initiation(victim: PublicKey) -> bytes:
    """Passes the first look, as its mac1 is right, and costs the victim an exchange of keys."""
    body = pack("<I", MESSAGE_INITIATION) + os.urandom(INITIATION_SIZE - 4 - 2 * MAC_SIZE)
    return CookieStamp(victim).stamp(body, 0)


KINDS: dict[str, Callable[[PublicKey], bytes]] = {
    "initiations": forged_initiation,
    "cookies": lambda victim: pack("<I", MESSAGE_COOKIE_REPLY) + os.urandom(COOKIE_REPLY_SIZE - 4),
    "data": lambda victim: pack("<I", MESSAGE_TRANSPORT) + os.urandom(INITIATION_SIZE - 4),
    "noise": lambda victim: os.urandom(INITIATION_SIZE),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=[*KINDS, "replays"])
    parser.add_argument("victim", help="PUBLIC-KEY@ADDRESS:PORT")
    parser.add_argument("sources", type=IPv4Network)
    parser.add_argument("--replay", default="", help="the datagram to replay, in hexadecimal")
    parser.add_argument("--rate", type=int, default=0, help="a second, one by one; by default as many as can be sent")
    arguments = parser.parse_args()
    key, _, address = arguments.victim.rpartition("@")
    host, _, port = address.rpartition(":")
    if arguments.kind == "replays":
        pool = [bytes.fromhex(arguments.replay)] * POOL
    else:
        pool = [KINDS[arguments.kind](PublicKey.from_base64(key)) for _ in range(POOL)]
    print("ready", flush=True)
    if arguments.rate:
        send_paced(pool, (host, int(port)), arguments.sources, arguments.rate)
    send_forever(pool, (host, int(port)), arguments.sources)


def send_paced(pool: list[bytes], victim: tuple[str, int], sources: IPv4Network, rate: int) -> None:
    """Until killed, `rate` datagrams a second; what the machine was too slow for is left out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        due = time.monotonic()
        for source, message in zip(addresses(sources), cycle(pool)):
            control = (socket.IPPROTO_IP, IP_PKTINFO, pack("=i4s4s", 0, source.packed, bytes(4)))
            sock.sendmsg([message], [control], 0, victim)
            due += 1 / rate
            if (early := due - time.monotonic()) > TICK:
                time.sleep(early)
            due = max(due, time.monotonic() - 0.1)


def send_forever(pool: list[bytes], victim: tuple[str, int], sources: IPv4Network) -> None:
    """Until killed."""
    size = len(pool[0])
    segment = (socket.SOL_UDP, UDP_SEGMENT, pack("H", size))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for source, at in zip(addresses(sources), cycle(range(0, POOL, BURST))):
            control = [segment, (socket.IPPROTO_IP, IP_PKTINFO, pack("=i4s4s", 0, source.packed, bytes(4)))]
            sock.sendmsg([b"".join(pool[at : at + BURST])], control, 0, victim)


def addresses(network: IPv4Network) -> Iterator[IPv4Address]:
    first, last = int(network.network_address), int(network.broadcast_address)
    if first < last:
        first, last = first + 10, last - 1
    while True:
        yield IPv4Address(random.randint(first, last))


if __name__ == "__main__":
    main()
