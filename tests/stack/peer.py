"""A peer of few words: its packets one by one, to a host of ours."""

from __future__ import annotations

import random
from ipaddress import ip_address

from tests.stack.line import PORT
from wgpy.burst import Burst
from wgpy.stack import ip
from wgpy.stack.departures import finished
from wgpy.stack.host import Host
from wgpy.stack.news import Listener
from wgpy.stack.tcp.connection import Connection
from wgpy.stack.tcp.header import ACK, HEADER, SYN

OURS, PEER = ip_address("10.0.0.2").packed, ip_address("10.0.0.1").packed


def make_host(memory: int = 1 << 20) -> Host:
    return Host([OURS], mtu=1420, random=random.Random(1).randbytes, memory=memory)


def segment(
    number: int, acknowledgement: int, flags: int, payload: bytes = b"", *, source: bytes = PEER, port: int = 1024,
    options: bytes = b"", window: int = 65535, to: int = PORT,
) -> Burst:  # fmt: skip
    """One segment to our host."""
    length = 20 + len(options)
    tcp = HEADER.pack(port, to, number, acknowledgement, length << 2, flags, window, 0, 0) + options
    return Burst.of(finished(ip.header(source, OURS, ip.TCP, length + len(payload)) + tcp, payload))


def drain(host: Host, now: float = 0.0) -> list[bytes]:
    """Every packet that is to leave."""
    packets = []
    while (burst := host.transmit(now)) is not None:
        packets += [bytes(packet) for packet in burst.packets()]
    return packets


def opened(
    host: Host, options: bytes = b"", port: int = 1024, listener: Listener | None = None, *, later: bytes = b""
) -> Connection:
    """A connection that the peer has opened: its next number is 1. `options` are its SYN's, `later` its ACK's."""
    is_own, listener = listener is None, listener or host.listen(None, PORT)
    host.receive(segment(0, 0, SYN, options=options, port=port), 0.0)
    (answer,) = drain(host)
    isn = int.from_bytes(answer[24:28])
    host.receive(segment(1, isn + 1, ACK, port=port, options=later), 0.0)
    connection = host.accept(listener)
    assert connection is not None
    if is_own:
        host.close_listener(listener)
    return connection


def fragment(identification: int, offset: int, payload: bytes, *, more: bool) -> Burst:
    """One fragment of a UDP datagram to our host."""
    header = ip._v4_header(PEER, OURS, ip.UDP, len(payload), 0, identification, offset // 8 | (0x2000 if more else 0))
    return Burst.of(header + payload)
