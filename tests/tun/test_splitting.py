"""Splitting: each rule by itself."""

from __future__ import annotations

from struct import unpack_from

import pytest

from tests.support import reference
from tests.support.bursts import (
    MTUS,
    OPTIONS,
    PAYLOAD,
    V4,
    V6,
    slots,
    super_header,
)
from tests.support.reference import ACK, CWR, FIN, PSH, tcp_packet, udp_packet
from wgpy.burst import ViewCache, padded_length
from wgpy.tun.splitting import split
from wgpy.tun.virtio import (
    GSO_NONE,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    VnetHeader,
)

SUPER_PACKETS = {
    "tcp4": tcp_packet(*V4, PAYLOAD, sequence=0xFFFFFF00, flags=ACK | PSH | FIN, identification=0xFFFF),
    "tcp4 with options": tcp_packet(*V4, PAYLOAD, tcp_options=OPTIONS, ip_options=b"\x94\x04\x00\x00", flags=ACK | PSH),
    "tcp6": tcp_packet(*V6, PAYLOAD, sequence=5, flags=ACK | FIN, tcp_options=OPTIONS, traffic_class=0xB8),
    "tcp4 with ecn": tcp_packet(*V4, PAYLOAD, flags=ACK | CWR | PSH, traffic_class=2),
    "tcp6 with ecn": tcp_packet(*V6, PAYLOAD, flags=ACK | CWR, traffic_class=2),
    "udp4": udp_packet(*V4, PAYLOAD, identification=9),
    "udp6": udp_packet(*V6, PAYLOAD),
}


@pytest.mark.parametrize("size", [48, 536, 1001, 1380, len(PAYLOAD) // 4, len(PAYLOAD), len(PAYLOAD) + 1])
@pytest.mark.parametrize("packet", SUPER_PACKETS.values(), ids=SUPER_PACKETS.keys())
def test_a_super_packet_becomes_its_segments(packet: bytes, size: int) -> None:
    expected = reference.segment_packet(packet, size)
    ecn = packet[9 if packet[0] == 0x45 else 6] == 6 and bool(packet[(20 if packet[0] == 0x45 else 40) + 13] & CWR)

    burst = split(super_header(packet, size, ecn=ecn), memoryview(packet), slots(), MTUS)

    assert burst is not None
    assert [bytes(packet) for packet in burst.packets()] == expected
    assert all(map(reference.checksums_hold, expected))
    assert burst.stride == 32 + padded_length(len(expected[0]), MTUS)
    last = padded_length(len(expected[-1]), MTUS) + 32
    assert len(burst.view) == burst.stride * (len(expected) - 1) + last


@pytest.mark.parametrize("ip_check", [0xFFFE, 0, 1, 50, 51, 52])
@pytest.mark.parametrize("identification", [0, 0xFFFF - 51, 0xFFFF - 50, 0xFFFE, 0xFFFF])
def test_identification_and_header_checksum_pass_zero(identification: int, ip_check: int) -> None:
    """The time to live and the protocol, which lie beside the checksum, stay what they are."""
    packet = bytearray(tcp_packet(*V4, PAYLOAD, identification=identification))
    length = 40 + 100
    head = bytearray(packet[:20])
    head[2:4], head[10:12] = length.to_bytes(2), bytes(2)
    source = int.from_bytes(head[14:16]) + reference.internet_checksum(bytes(head)) - ip_check
    packet[14:16] = (source % 0xFFFF).to_bytes(2)
    expected = reference.segment_packet(bytes(packet), 100)
    assert int.from_bytes(expected[0][10:12]) == ip_check

    burst = split(super_header(bytes(packet), 100), memoryview(packet), slots(), MTUS)

    assert burst is not None
    assert [bytes(packet) for packet in burst.packets()] == expected


def test_an_odd_mtu_gives_odd_slots() -> None:
    packet = tcp_packet(*V6, PAYLOAD)
    burst = split(super_header(packet, 1335), memoryview(packet), slots(), (1395,))
    assert burst is not None
    assert burst.stride == 1395 + 32
    assert [bytes(packet) for packet in burst.packets()] == reference.segment_packet(packet, 1335)


@pytest.mark.parametrize("packet", [tcp_packet(*V4, b""), tcp_packet(*V6, b"odd"), udp_packet(*V4, PAYLOAD[:1300])])
def test_a_plain_packet_is_not_copied(packet: bytes) -> None:
    room = slots()
    buffer = room.buffer
    buffer[16 : 16 + len(packet)] = packet
    burst = split(VnetHeader(), buffer[16 : 16 + len(packet)], room, MTUS)
    assert burst is not None
    assert burst.lengths == [len(packet)]
    assert burst.view.obj is buffer.obj
    assert len(burst.view) == burst.stride == 32 + padded_length(len(packet), MTUS)
    assert bytes(burst.packet(0)) == packet


@pytest.mark.parametrize(
    ("packet", "offset"),
    [
        (tcp_packet(*V4, b"hello"), 16),
        (tcp_packet(*V6, PAYLOAD[:1301]), 16),
        (udp_packet(*V4, b""), 6),
        (udp_packet(*V6, b"odd"), 6),
    ],
)
def test_an_unfinished_checksum_is_completed(packet: bytes, offset: int) -> None:
    start = 20 if packet[0] >> 4 == 4 else 40
    addresses = packet[12:20] if start == 20 else packet[8:40]
    pseudo = addresses + bytes([0, 6 if offset == 16 else 17]) + (len(packet) - start).to_bytes(2, "big")
    partial = bytearray(packet)
    partial[start + offset : start + offset + 2] = (reference.internet_checksum(pseudo) ^ 0xFFFF).to_bytes(2, "big")
    burst = split(VnetHeader(NEEDS_CSUM, GSO_NONE, 0, 0, start, offset), memoryview(partial), slots(), MTUS)
    assert burst is not None
    assert bytes(burst.packet(0)) == packet


def test_extension_headers_are_left_in_place() -> None:
    plain = tcp_packet(*V6, PAYLOAD)
    options = bytes([6, 0, 1, 4, 0, 0, 0, 0])  # destination options: PadN
    packet = plain[:4] + (len(plain) - 32).to_bytes(2, "big") + b"\x3c" + plain[7:40] + options + plain[40:]
    header = super_header(plain, 1000)._replace(csum_start=48)
    burst = split(header, memoryview(packet), slots(), MTUS)
    assert burst is not None
    for segment, expected in zip(burst.packets(), reference.segment_packet(plain, 1000), strict=True):
        assert bytes(segment[40:48]) == options
        assert bytes(segment[48:]) == expected[40:]
        assert unpack_from(">H", segment, 4)[0] == len(segment) - 40


TCP4 = tcp_packet(*V4, PAYLOAD)
GOOD = super_header(TCP4, 1000)


@pytest.mark.parametrize(
    ("header", "packet"),
    [
        (VnetHeader(), b""),
        (GOOD, b""),
        (GOOD, TCP4[:30]),
        (GOOD, TCP4[:40]),
        (GOOD._replace(gso_size=0), TCP4),
        (GOOD._replace(csum_start=24), TCP4),
        (GOOD._replace(csum_start=65535), TCP4),
        (GOOD._replace(gso_type=GSO_TCPV6), TCP4),
        (GOOD._replace(gso_type=GSO_UDP_L4), TCP4),
        (GOOD._replace(gso_type=3), TCP4),
        (GOOD._replace(gso_size=1), TCP4),
        (GOOD, b"\x55" + TCP4[1:]),
        (GOOD, TCP4[:32] + b"\x40" + TCP4[33:]),
        (VnetHeader(NEEDS_CSUM, GSO_NONE, 0, 0, 20, len(TCP4)), TCP4),
    ],
)
def test_a_packet_that_does_not_fit_is_refused(header: VnetHeader, packet: bytes) -> None:
    room = ViewCache(memoryview(bytearray(64 * 1024)))
    assert split(header, memoryview(packet), room, MTUS) is None
