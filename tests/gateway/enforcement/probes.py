"""Sends single packets from one network namespace to servers in another, and says which were answered.

python -m tests.gateway.enforcement.probes serve 443    answer on a port
python -m tests.gateway.enforcement.probes ask          lines of JSON: a list of probes, which are answered;
                                                        {name: probe}, connections to make; a name, to use one again
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

PATIENCE = 1.0  # seconds; a packet that is refused is refused at once, so only what is dropped takes this long
_ECHO = {4: (8, socket.IPPROTO_ICMP), 6: (128, socket.IPPROTO_ICMPV6)}
_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Probe(NamedTuple):
    """A packet to send. ICMP has no port."""

    source: str
    destination: str
    protocol: str = "tcp"
    port: int = 443


def serve(ports: Iterable[int]) -> None:
    """Answer TCP and UDP on ports, of both IP versions, in threads. The answer is the address of who asked."""
    for port in ports:
        for kind, serving in ((socket.SOCK_STREAM, _serve_stream), (socket.SOCK_DGRAM, _serve_datagrams)):
            server = socket.socket(socket.AF_INET6, kind)
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            server.bind(("::", port))
            threading.Thread(target=serving, args=(server,), daemon=True).start()


def answered(probe: Probe) -> str:
    """The source address that the server saw, or "echo" for ICMP; empty if there was no answer."""
    version = 6 if ":" in probe.destination else 4
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    try:
        if probe.protocol == "icmp":
            return _ping(version, family, probe)
        with connected(probe) as client:
            client.send(b"?")
            return client.recv(100).decode()
    except OSError:
        return ""


def connected(probe: Probe) -> socket.socket:
    """A connection of TCP or UDP. Raises OSError."""
    family = socket.AF_INET6 if ":" in probe.destination else socket.AF_INET
    client = socket.socket(family, _KINDS[probe.protocol])
    try:
        client.settimeout(PATIENCE)
        client.bind((probe.source, 0))
        client.connect((probe.destination, probe.port))
    except OSError:
        client.close()
        raise
    return client


def goes_on(connection: socket.socket) -> bool:
    """Whether an open connection still gets answers."""
    try:
        connection.send(b"?")
        return bool(connection.recv(100))
    except OSError:
        return False


def _ping(version: int, family: socket.AddressFamily, probe: Probe) -> str:
    kind, protocol = _ECHO[version]
    with socket.socket(family, socket.SOCK_RAW, protocol) as client:
        client.settimeout(PATIENCE)
        client.bind((probe.source, 0))
        client.connect((probe.destination, 0))
        client.setsockopt(*_RECVERR[version], 1)  # only now, when errors about packets of other sockets are not ours
        message = struct.pack("!BBHHH", kind, 0, 0, threading.get_native_id() & 0xFFFF, 1)
        total = sum(struct.unpack("!4H", message))
        total = (total & 0xFFFF) + (total >> 16)
        client.send(message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:])
        while client.recv(100)[-4:] != message[-4:]:  # another's
            pass
        return "echo"


def _serve_stream(server: socket.socket) -> None:
    server.listen(100)
    while True:
        connection, address = server.accept()
        threading.Thread(target=_greet, args=(connection, _plain(address[0])), daemon=True).start()


def _greet(connection: socket.socket, client: str) -> None:
    with connection:
        try:
            while connection.recv(100):
                connection.send(client.encode())
        except OSError:
            pass


def _serve_datagrams(server: socket.socket) -> None:
    while True:
        _, ancillary, _, address = server.recvmsg(100, 100)
        server.sendmsg([_plain(address[0]).encode()], ancillary, 0, address)  # from the address that was asked


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(map(int, sys.argv[2:]))
        print("ready", flush=True)
        threading.Event().wait()
    threads = ThreadPoolExecutor(50)
    connections: dict[str, socket.socket] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, str):
            print(json.dumps(goes_on(connections[asked])), flush=True)
        elif isinstance(asked, dict):
            connections |= {name: connected(Probe(*each)) for name, each in asked.items()}
            print("null", flush=True)
        else:
            print(json.dumps([*threads.map(answered, map(Probe._make, asked))]), flush=True)
