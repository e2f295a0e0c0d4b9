"""ICMP errors for packets that cannot be carried."""

from __future__ import annotations

import pytest

from tests.support.packets import ipv4_packet, ipv6_packet
from wgpy.device.icmp import unreachable


def words_sum(data: bytes) -> int:
    """The one's complement sum, word by word: 0xFFFF when a checksum in it is right."""
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("size", [0, 1, 8, 520, 521, 2000])
def test_host_unreachable_quotes_the_packet(size: int) -> None:
    packet = ipv4_packet("10.0.0.1", "10.9.9.9", b"q" * size)
    error = unreachable(packet)
    assert error is not None
    assert len(error) == min(576, 28 + len(packet)) == int.from_bytes(error[2:4], "big")
    assert error[12:16] == packet[16:20]
    assert error[16:20] == packet[12:16]
    assert error[9] == 1
    assert error[20:22] == b"\3\1"
    assert error[28:] == packet[: len(error) - 28]
    assert words_sum(error[:20]) == words_sum(error[20:]) == 0xFFFF


@pytest.mark.parametrize("size", [0, 1, 8, 1192, 1193, 4000])
def test_address_unreachable_quotes_the_packet(size: int) -> None:
    packet = ipv6_packet("fd00::1", "fd99::9", b"q" * size)
    error = unreachable(packet)
    assert error is not None
    assert len(error) == min(1280, 48 + len(packet)) == 40 + int.from_bytes(error[4:6], "big")
    assert error[8:24] == packet[24:40]
    assert error[24:40] == packet[8:24]
    assert error[6] == 58
    assert error[40:42] == b"\1\3"
    assert error[48:] == packet[: len(error) - 48]
    pseudo = error[8:40] + (len(error) - 40).to_bytes(4, "big") + b"\0\0\0\x3a"
    assert words_sum(pseudo + error[40:]) == 0xFFFF


def changed(packet: bytes, position: int, value: int) -> bytes:
    return packet[:position] + bytes([value]) + packet[position + 1 :]


V4 = ipv4_packet("10.0.0.1", "10.9.9.9", bytes(8))
V6 = ipv6_packet("fd00::1", "fd99::9", bytes(8))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes(40),
        changed(changed(V4, 9, 1), 20, 3),  # an ICMP error
        changed(V4, 9, 1)[:20],  # ICMP of no known type
        changed(V4, 7, 1),  # a later fragment
        changed(V4, 16, 224),
        changed(V4, 16, 255),
        changed(V4, 12, 0),
        changed(V4, 12, 127),
        changed(V4, 12, 239),
        changed(changed(V6, 6, 58), 40, 1),  # an ICMPv6 error
        changed(V6, 24, 0xFF),
        changed(V6, 8, 0xFF),
        V6[:8] + bytes(16) + V6[24:],
    ],
)
def test_no_error_is_sent_where_the_rfcs_forbid_it(packet: bytes) -> None:
    assert unreachable(packet) is None


def test_a_ping_is_answered() -> None:
    assert unreachable(changed(changed(V4, 9, 1), 20, 8)) is not None
    assert unreachable(changed(changed(V6, 6, 58), 40, 128)) is not None
