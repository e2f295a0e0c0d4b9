"""The fields read from inner packets, and congestion marks through the tunnel."""

from __future__ import annotations

import pytest

from tests.support.packets import ipv4_packet, ipv6_packet
from wgpy.device import ip
from wgpy.device.ip import CE, ECT_0, ECT_1, NOT_ECT

V4 = ipv4_packet("10.0.0.1", "10.0.0.2", b"payload")
V6 = ipv6_packet("fd00::1", "fd00::2", b"payload")


def test_addresses_are_read_from_packets() -> None:
    assert (ip.source(V4), ip.destination(V4)) == (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
    assert (ip.source(V6), ip.destination(V6)) == (V6[8:24], V6[24:40])


@pytest.mark.parametrize("packet", [b"", b"\x45", V4[:19], V6[:39], b"\x55" + V4[1:], bytes(60)])
def test_what_is_not_ip_has_no_address_and_no_length(packet: bytes) -> None:
    assert ip.source(packet) is ip.destination(packet) is None
    assert ip.length_and_source(packet) == (0, b"")


@pytest.mark.parametrize("packet", [V4, V6, V4[:2] + b"\0\x14" + V4[4:20], V6[:4] + b"\0\0" + V6[6:40]])
def test_the_length_is_read_from_the_header_whatever_padding_follows(packet: bytes) -> None:
    for padding in (0, 1, 15):
        assert ip.length_and_source(packet + bytes(padding)) == (len(packet), ip.source(packet))


@pytest.mark.parametrize("packet", [V4[:-1], V6[:-1], V4[:2] + b"\0\x13" + V4[4:], V6[:4] + b"\xff\xf0" + V6[6:]])
def test_an_impossible_length_gives_none(packet: bytes) -> None:
    assert ip.length_and_source(packet) == (0, b"")


def test_the_largest_ipv6_packet_is_measured_without_overflow() -> None:
    packet = V6[:4] + b"\xff\xff" + V6[6:40] + bytes(65535)
    assert ip.length_and_source(packet) == (65575, packet[8:24])


# RFC 6040, figure 4, with the kernel's choice where the RFC says drop: (inner, outer) -> inner afterwards.
DECAPSULATED = {
    (NOT_ECT, NOT_ECT): NOT_ECT, (NOT_ECT, ECT_0): NOT_ECT, (NOT_ECT, ECT_1): NOT_ECT, (NOT_ECT, CE): NOT_ECT,
    (ECT_0, NOT_ECT): ECT_0, (ECT_0, ECT_0): ECT_0, (ECT_0, ECT_1): ECT_1, (ECT_0, CE): CE,
    (ECT_1, NOT_ECT): ECT_1, (ECT_1, ECT_0): ECT_1, (ECT_1, ECT_1): ECT_1, (ECT_1, CE): CE,
    (CE, NOT_ECT): CE, (CE, ECT_0): CE, (CE, ECT_1): CE, (CE, CE): CE,
}  # fmt: skip


@pytest.mark.parametrize(("inner", "outer"), DECAPSULATED)
@pytest.mark.parametrize("other_bits", [0, 0b101110])
def test_decapsulation_follows_rfc_6040(inner: int, outer: int, other_bits: int) -> None:
    traffic_class = other_bits << 2 | inner
    expected = other_bits << 2 | DECAPSULATED[inner, outer]
    v4 = bytearray(ipv4_packet("10.0.0.1", "10.0.0.2", tos=traffic_class))
    ip.decapsulate_ecn(memoryview(v4), outer)
    assert v4 == ipv4_packet("10.0.0.1", "10.0.0.2", tos=expected)  # its header checksum too
    v6 = bytearray(ipv6_packet("fd00::1", "fd00::2", traffic_class=traffic_class))
    ip.decapsulate_ecn(memoryview(v6), outer)
    assert v6 == ipv6_packet("fd00::1", "fd00::2", traffic_class=expected)


@pytest.mark.parametrize(("inner", "outer"), [(NOT_ECT, NOT_ECT), (ECT_0, ECT_0), (ECT_1, ECT_1), (CE, ECT_0)])
def test_encapsulation_keeps_a_mark_inside(inner: int, outer: int) -> None:
    for packet in (
        ipv4_packet("10.0.0.1", "10.0.0.2", tos=0xB8 | inner),
        ipv6_packet("fd00::1", "fd00::2", traffic_class=0xB8 | inner),
    ):
        assert ip.ecn(packet) == inner
        assert ip.outer_ecn(packet) == outer
        assert ip.outer_ecn(bytes(16) + packet, 16) == outer


def test_packets_of_two_ip_versions_never_have_the_same_source() -> None:
    four = ipv4_packet("10.0.0.1", "10.0.0.2", bytes(40))
    six = bytearray(ipv6_packet("fd00::1", "fd00::2", bytes(20)))
    six[2:4] = (60).to_bytes(2, "big")  # of the flow label, where IPv4 has its length
    six[12:16] = four[12:16]
    for packets in (four + six, six + four):
        assert ip.lengths_and_shared_source(memoryview(packets), 0, 60, [60, 60]) is None
    assert ip.lengths_and_shared_source(memoryview(six + six), 0, 60, [60, 60]) == ((60, 60), bytes(six[8:24]))
