"""The few fields of an inner IP packet that WireGuard looks at: addresses, length, and congestion marks (RFC 6040)."""

from __future__ import annotations

from functools import lru_cache
from operator import le
from struct import Struct
from typing import Final

IPV4_HEADER_SIZE: Final = 20
IPV6_HEADER_SIZE: Final = 40

_UDP: Final = 17
_UDP_HEADER_SIZE: Final = 8
_FRAGMENT, _FRAGMENT_HEADER_SIZE = 44, 8  # of IPv6

NOT_ECT, ECT_1, ECT_0, CE = range(4)  # the ECN field (RFC 3168, section 5)

_ipv4_source = Struct("12x4s").unpack_from
_ipv4_destination = Struct("16x4s").unpack_from
_ipv6_source = Struct("8x16s").unpack_from
_ipv6_destination = Struct("24x16s").unpack_from
_ipv4_fields = Struct(">BxH8x4s").unpack_from  # version and header length, total length, source
_ipv6_fields = Struct(">4xH2x16s").unpack_from  # payload length, source

Packet = bytes | bytearray | memoryview


def version(packet: Packet) -> int:
    """4 or 6; 0 for less than a header, or another protocol."""
    if len(packet) >= IPV4_HEADER_SIZE:
        number = packet[0] >> 4
        if number == 4 or (number == 6 and len(packet) >= IPV6_HEADER_SIZE):
            return number
    return 0


def source(packet: Packet) -> bytes | None:
    """The source address, 4 or 16 bytes; None if it is not an IP packet."""
    number = version(packet)
    if not number:
        return None
    address: bytes = (_ipv4_source if number == 4 else _ipv6_source)(packet)[0]
    return address


def destination(packet: Packet) -> bytes | None:
    """The destination address, 4 or 16 bytes; None if it is not an IP packet."""
    size = len(packet)
    if size >= IPV4_HEADER_SIZE:
        number = packet[0] >> 4
        address: bytes
        if number == 4:
            (address,) = _ipv4_destination(packet)
            return address
        if number == 6 and size >= IPV6_HEADER_SIZE:
            (address,) = _ipv6_destination(packet)
            return address
    return None


def udp_payload(packet: Packet) -> Packet | None:
    """The payload of a UDP packet, or of the first fragment of one; None for any other packet."""
    if packet[0] >> 4 == 4:
        if packet[9] != _UDP or packet[6] & 0x1F or packet[7]:
            return None
        return packet[(packet[0] & 15) * 4 + _UDP_HEADER_SIZE :]
    start = IPV6_HEADER_SIZE
    protocol = packet[6]
    if protocol == _FRAGMENT and len(packet) >= start + _FRAGMENT_HEADER_SIZE:
        if packet[start + 2] or packet[start + 3] & 0xF8:
            return None
        protocol = packet[start]
        start += _FRAGMENT_HEADER_SIZE
    return packet[start + _UDP_HEADER_SIZE :] if protocol == _UDP else None


def length_and_source(plaintext: Packet) -> tuple[int, bytes]:
    """The length that the packet's own header gives, which leaves off the padding, and its source address.

    (0, b"") if it is not a whole packet: not IP, or cut off (kernel receive.c, wg_packet_consume_data_done).
    """
    size = len(plaintext)
    if size >= IPV4_HEADER_SIZE:
        first, length, address = _ipv4_fields(plaintext)
        if first >> 4 == 4:
            if IPV4_HEADER_SIZE <= length <= size:
                return length, address
        elif first >> 4 == 6 and size >= IPV6_HEADER_SIZE:
            payload_length, address = _ipv6_fields(plaintext)
            if IPV6_HEADER_SIZE + payload_length <= size:
                return IPV6_HEADER_SIZE + payload_length, address
    return 0, b""


def lengths_and_shared_source(
    view: memoryview, at: int, stride: int, sizes: list[int]
) -> tuple[tuple[int, ...], bytes] | None:
    """The lengths and the common source of packets of these sizes, `stride` bytes apart from offset `at` on.

    None if their versions or sources differ, or one of them is not whole: then look at each by itself.
    """
    number = version(view[at : at + sizes[0]])
    least = {4: IPV4_HEADER_SIZE, 6: IPV6_HEADER_SIZE}.get(number, 0)
    if not least or min(sizes) < least:
        return None
    fields = _headers(number, stride, len(sizes)).unpack_from(view, at)
    firsts, lengths, sources = fields[::3], fields[1::3], fields[2::3]
    if number == 6:
        lengths = tuple(map(IPV6_HEADER_SIZE.__add__, lengths))
    if sources.count(sources[0]) < len(sizes) or firsts.count(firsts[0]) < len(sizes):
        return None
    if min(lengths) < least or not all(map(le, lengths, sizes)):
        return None
    return lengths, sources[0]


@lru_cache(maxsize=256)
def _headers(number: int, stride: int, count: int) -> Struct:
    """Unpacks, for each of `count` packets `stride` bytes apart, its first byte, its length field and its source."""
    one, size = ("BxH8x4s", 16) if number == 4 else ("B3xH2x16s", 24)
    return Struct(">" + one + f"{stride - size}x{one}" * (count - 1))


def ecn(packet: Packet) -> int:
    """The ECN field of an IP packet, 0 to 3."""
    if packet[0] >> 4 == 4:
        return packet[1] & 3
    return packet[1] >> 4 & 3


def outer_ecn(packet: Packet, at: int = 0) -> int:
    """The ECN field for the outer datagram of the packet that begins at `at`.

    It is the packet's own, but a congestion mark is not copied to it (RFC 3168, 9.1.1). The rest of the
    traffic class is not copied, so an observer learns nothing else about the packet.
    """
    second = packet[at + 1]
    inner = second & 3 if packet[at] >> 4 == 4 else second >> 4 & 3
    return ECT_0 if inner == CE else inner


def decapsulate_ecn(packet: memoryview, outer: int) -> None:
    """Copy the outer datagram's congestion mark into the packet, in place (RFC 6040, section 4.2).

    A packet that is not ECN-capable is left as it is and not dropped, as in the kernel.
    """
    inner = ecn(packet)
    if inner in (NOT_ECT, CE):
        return
    if outer == CE:
        _set_ecn(packet, CE)
    elif outer == ECT_1 and inner == ECT_0:
        _set_ecn(packet, ECT_1)


def _set_ecn(packet: memoryview, value: int) -> None:
    if packet[0] >> 4 == 6:
        packet[1] = packet[1] & 0b11001111 | value << 4
        return
    old = packet[1]
    packet[1] = old & 0b11111100 | value
    # The header checksum is updated for the one word that changes (RFC 1624).
    total = (packet[10] << 8 | packet[11]) ^ 0xFFFF
    total = (total - old + packet[1]) % 0xFFFF
    packet[10:12] = (total ^ 0xFFFF).to_bytes(2, "big")
