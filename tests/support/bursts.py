"""Bursts, super-packets and runs of packets for tests, and what a TUN write stands for, found by the slow twin."""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack_from
from typing import Any

from tests.support import reference
from tests.support.reference import tcp_packet, udp_packet
from wgpy.burst import Burst, ViewCache, padded_length
from wgpy.tun.merging import IoVector, Write
from wgpy.tun.splitting import SLOTS_SIZE
from wgpy.tun.virtio import (
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    PLAIN,
    VnetHeader,
)

MTUS = (1420,)
V4 = ("10.0.0.1", "10.0.0.2")
V6 = ("fd00::1", "fd00::2")
OPTIONS = bytes.fromhex("0101080a0000000100000002")  # two NOPs and a timestamp
PAYLOAD = bytes(range(256)) * 20

Make = Callable[..., bytes]


def slots() -> ViewCache:
    return ViewCache(memoryview(bytearray(b"\xaa") * SLOTS_SIZE))


def burst_of(*packets: bytes, stride: int | None = None) -> Burst:
    """Packets in slots as they come out of datagrams: nothing but the packets is zero."""
    stride = stride or padded_length(max(map(len, packets)), MTUS) + 32
    last = padded_length(len(packets[-1]), MTUS) + 32
    view = memoryview(bytearray(b"\xaa" * (stride * (len(packets) - 1) + last)))
    for i, packet in enumerate(packets):
        view[i * stride + 16 : i * stride + 16 + len(packet)] = packet
    return Burst(view, stride, [len(packet) for packet in packets])


def super_header(packet: bytes, size: int, *, ecn: bool = False) -> VnetHeader:
    """What the kernel puts before a super-packet, with a `hdr_len` as wrong as on its forwarding path."""
    v4 = packet[0] >> 4 == 4
    l4 = (packet[0] & 15) * 4 if v4 else 40
    tcp = (packet[9] if v4 else packet[6]) == 6
    kind = (GSO_TCPV4 if v4 else GSO_TCPV6) if tcp else GSO_UDP_L4
    return VnetHeader(NEEDS_CSUM, kind | GSO_ECN * ecn, len(packet), size, l4, 16 if tcp else 6)


def outcome(write: Write | IoVector) -> list[bytes]:
    """The packets one TUN write stands for, found by the slow twin; a super-packet's header is checked on the way."""
    parts = write.parts if isinstance(write, Write) else write
    packet = b"".join(parts[1:])
    if bytes(parts[0]) == PLAIN:
        return [packet]
    header = VnetHeader.unpack(parts[0])
    assert header == super_header(packet, header.gso_size)._replace(hdr_len=len(parts[1]))
    assert len(packet) <= 65535
    start, field = header.csum_start, header.csum_start + header.csum_offset
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    protocol = 17 if header.gso_type == GSO_UDP_L4 else 6
    pseudo = addresses + bytes([0, protocol]) + (len(packet) - start).to_bytes(2, "big")
    assert unpack_from(">H", packet, field)[0] % 0xFFFF == (reference.internet_checksum(pseudo) ^ 0xFFFF) % 0xFFFF
    if packet[0] >> 4 == 4:
        assert reference.internet_checksum(packet[:20]) == 0
        assert unpack_from(">H", packet, 2)[0] == len(packet)
    else:
        assert unpack_from(">H", packet, 4)[0] == len(packet) - 40
    segments = reference.segment_packet(packet, header.gso_size)
    assert not isinstance(write, Write) or len(segments) == len(write.slots)
    return segments


def sizes(writes: list[Write] | list[IoVector]) -> list[int]:
    """How many packets each write holds."""
    return [len(outcome(write)) for write in writes]


def tcp_run(count: int, size: int = 100, addresses: tuple[str, str] = V4, **fields: Any) -> list[bytes]:
    return [
        tcp_packet(
            *addresses,
            PAYLOAD[i * size : (i + 1) * size],
            **{"sequence": 7 + i * size, "identification": i, **fields},
        )
        for i in range(count)
    ]


def udp_run(count: int, size: int = 100, addresses: tuple[str, str] = V4, **fields: Any) -> list[bytes]:
    return [udp_packet(*addresses, bytes([i]) * size, **{"identification": i, **fields}) for i in range(count)]


def by_flow(packets: list[bytes]) -> list[dict[bytes, list[bytes]]]:
    """What merging keeps of packets: the order within each flow, and around a packet whose flow is unknown (b"")."""
    parts: list[dict[bytes, list[bytes]]] = [{}]
    for packet in packets:
        flow = _flow(packet)
        parts[-1].setdefault(flow, []).append(_unidentified(packet))
        if not flow:
            parts.append({})
    return parts


def _flow(packet: bytes) -> bytes:
    if len(packet) >= 28 and packet[0] == 0x45 and packet[9] in (6, 17) and not (packet[6] & 0xBF or packet[7]):
        return packet[12:24]
    if len(packet) >= 48 and packet[0] >> 4 == 6 and packet[6] in (6, 17):
        return packet[8:44]
    return b""


def _unidentified(packet: bytes) -> bytes:
    """The packet without the IPv4 identification, which means nothing beside DF (RFC 6864) and may change there."""
    if len(packet) >= 20 and packet[0] == 0x45 and packet[6] & 0x40 and reference.internet_checksum(packet[:20]) == 0:
        return packet[:4] + packet[6:10] + packet[12:]
    return packet
