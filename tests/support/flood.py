"""A flood of one kind of datagram from thousands of addresses: python -m tests.support.flood -h.

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
from wgpy.net.udp import UDP_SEGMENT
from wgpy.noise.cookie import CookieStamp

POOL = 4096  # different datagrams of a kind
BURST = 8  # datagrams a source sends at once


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
    parser.add_argument("--rate", type=int, default=0, help="datagrams a second; 0, the default: as fast as it can")
    arguments = parser.parse_args()
    key, _, address = arguments.victim.rpartition("@")
    host, _, port = address.rpartition(":")
    if arguments.kind == "replays":
        pool = [bytes.fromhex(arguments.replay)] * POOL
    else:
        pool = [KINDS[arguments.kind](PublicKey.from_base64(key)) for _ in range(POOL)]
    print("ready", flush=True)
    send_forever(pool, (host, int(port)), arguments.sources, BURST / arguments.rate if arguments.rate else 0)


def send_forever(pool: list[bytes], victim: tuple[str, int], sources: IPv4Network, pause: float) -> None:
    """Until killed, with `pause` seconds after each burst."""
    size = len(pool[0])
    segment = (socket.SOL_UDP, UDP_SEGMENT, pack("H", size))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for source, at in zip(addresses(sources), cycle(range(0, POOL, BURST))):
            control = [segment, (socket.IPPROTO_IP, IP_PKTINFO, pack("=i4s4s", 0, source.packed, bytes(4)))]
            sock.sendmsg([b"".join(pool[at : at + BURST])], control, 0, victim)
            if pause:
                time.sleep(pause)


def addresses(network: IPv4Network) -> Iterator[IPv4Address]:
    first, last = int(network.network_address) + 10, int(network.broadcast_address) - 1
    while True:
        yield IPv4Address(random.randint(first, last))


if __name__ == "__main__":
    main()
