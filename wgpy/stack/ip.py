"""IP headers (RFC 791, RFC 8200): what a received packet says of itself, and those of packets that are sent."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from wgpy.device.ip import IPV4_HEADER_SIZE as IPV4_HEADER_SIZE
from wgpy.device.ip import IPV6_HEADER_SIZE as IPV6_HEADER_SIZE
from wgpy.tun.checksum import complement, ones_sum
from wgpy.tun.layout import TCP as TCP
from wgpy.tun.layout import UDP as UDP

ICMP, ICMPV6 = 1, 58
_FRAGMENT_HEADER_SIZE: Final = 8
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _NO_NEXT, _DESTINATION = 0, 43, 44, 59, 60
MAX_EXTENSIONS: Final = 8  # headers of IPv6: more than anybody sends
HOP_LIMIT: Final = 64
DONT_FRAGMENT: Final = 0x4000
_MORE_FRAGMENTS: Final = 0x2000
_SOURCE_ROUTES: Final = frozenset((131, 137))  # IPv4 options that the kernel refuses (accept_source_route)

_v4 = Struct(">BBHHHBBH4s4s")
_v6 = Struct(">IHBB16s16s")


class Drop(StrEnum):
    """Why a packet from the tunnel went no further; counted by the host."""

    MALFORMED = "malformed"  # no whole IP packet, or a header that does not fit
    CHECKSUM = "checksum"
    NOT_OURS = "not_ours"  # sent to an address that the host does not have
    SOURCE_ROUTED = "source_routed"
    FRAGMENT = "fragment"  # incomplete, overlapping, or more than may wait
    UNKNOWN_PROTOCOL = "unknown_protocol"
    CLOSED_PORT = "closed_port"
    BACKLOG_FULL = "backlog_full"  # connections that nobody accepts
    NOT_IN_WINDOW = "not_in_window"  # of a TCP connection
    QUEUE_FULL = "queue_full"  # datagrams that nobody reads
    RATE_LIMITED = "rate_limited"  # an answer to whoever may be forging its address


class Packet(NamedTuple):
    """One received packet: addresses of 4 or 16 bytes, and what the headers before `payload` say.

    `fragment` is (identification, offset in bytes, whether more follow), None for a whole packet.
    """

    source: bytes
    destination: bytes
    protocol: int
    payload: memoryview
    ecn: int
    fragment: tuple[int, int, bool] | None
    whole: memoryview


def parse(packet: memoryview) -> Packet | Drop:
    """Look at a packet's headers; every length is checked against what came."""
    size = len(packet)
    if size >= IPV4_HEADER_SIZE and packet[0] >> 4 == 4:
        return _parse_v4(packet, size)
    if size >= IPV6_HEADER_SIZE and packet[0] >> 4 == 6:
        return _parse_v6(packet, size)
    return Drop.MALFORMED


def _parse_v4(packet: memoryview, size: int) -> Packet | Drop:
    first, tos, length, identification, flags, _, protocol, _, source, destination = _v4.unpack_from(packet)
    header = (first & 15) * 4
    if not IPV4_HEADER_SIZE <= header <= length <= size:
        return Drop.MALFORMED
    if ones_sum(packet[:header]):
        return Drop.CHECKSUM
    if header > IPV4_HEADER_SIZE and _is_source_routed(packet[IPV4_HEADER_SIZE:header]):
        return Drop.SOURCE_ROUTED
    offset, more = (flags & 0x1FFF) * 8, bool(flags & _MORE_FRAGMENTS)
    fragment = (identification, offset, more) if offset or more else None
    return Packet(source, destination, protocol, packet[header:length], tos & 3, fragment, packet[:length])


def _is_source_routed(options: memoryview) -> bool:
    i = 0
    while i < len(options) and options[i]:
        if options[i] in _SOURCE_ROUTES:
            return True
        size = 1 if options[i] == 1 else options[i + 1] if i + 1 < len(options) else 0
        if not size:
            return False
        i += size
    return False


def _parse_v6(packet: memoryview, size: int) -> Packet | Drop:
    first, length, protocol, _, source, destination = _v6.unpack_from(packet)
    end = IPV6_HEADER_SIZE + length
    if end > size:
        return Drop.MALFORMED
    at = IPV6_HEADER_SIZE
    for _ in range(MAX_EXTENSIONS):
        if protocol not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION):
            return Packet(source, destination, protocol, packet[at:end], first >> 20 & 3, None, packet[:end])
        if at + 8 > end:
            return Drop.MALFORMED
        if protocol == _FRAGMENT:  # what follows it is looked at when all has come
            field = packet[at + 2] << 8 | packet[at + 3]
            fragment = (int.from_bytes(packet[at + 4 : at + 8]), field & 0xFFF8, bool(field & 1))
            if fragment[1] or fragment[2]:
                return Packet(
                    source, destination, packet[at], packet[at + 8 : end], first >> 20 & 3, fragment, packet[:end]
                )
            header = 8  # an atomic fragment (RFC 6946)
        else:
            header = 8 + packet[at + 1] * 8
            if at + header > end:
                return Drop.MALFORMED
            if protocol == _ROUTING and packet[at + 3]:  # segments are left (RFC 5095)
                return Drop.SOURCE_ROUTED
        protocol, at = packet[at], at + header
    return Drop.MALFORMED


@lru_cache(maxsize=256)  # a connection sends few lengths: those of its requests, of acknowledgements, of full segments
def header(source: bytes, destination: bytes, protocol: int, length: int, ecn: int = 0) -> bytes:
    """The header of a packet that carries `length` bytes and is not to be fragmented; IPv4's identification is 0.

    RFC 6864, 4.1: of such packets it says nothing.
    """
    if len(source) == 16:
        return _v6.pack(6 << 28 | ecn << 20, length, protocol, HOP_LIMIT, source, destination)
    return _v4_header(source, destination, protocol, length, ecn, 0, DONT_FRAGMENT)


def _v4_header(
    source: bytes, destination: bytes, protocol: int, length: int, ecn: int, identification: int, flags: int
) -> bytes:
    size = IPV4_HEADER_SIZE + length
    fields = (0x4500 | ecn) + size + identification + flags + (HOP_LIMIT << 8 | protocol)
    check = complement(fields + int.from_bytes(source + destination))
    return _v4.pack(0x45, ecn, size, identification, flags, HOP_LIMIT, protocol, check, source, destination)


def packets(
    source: bytes, destination: bytes, protocol: int, message: bytes, mtu: int, identification: int
) -> list[bytes]:
    """The packet that carries a message, or its fragments, none longer than `mtu` bytes."""
    size = header_size(destination)
    if size + len(message) <= mtu:
        return [header(source, destination, protocol, len(message)) + message]
    is_v6 = size == IPV6_HEADER_SIZE
    room = (mtu - size - (_FRAGMENT_HEADER_SIZE if is_v6 else 0)) & ~7
    found = []
    for at in range(0, len(message), room):
        part = message[at : at + room]
        more = at + room < len(message)
        if is_v6:
            extension = bytes((protocol, 0)) + (at | more).to_bytes(2) + identification.to_bytes(4)
            head = header(source, destination, _FRAGMENT, len(extension) + len(part)) + extension
        else:
            head = _v4_header(
                source, destination, protocol, len(part), 0, identification, at >> 3 | _MORE_FRAGMENTS * more
            )
        found.append(head + part)
    return found


def header_size(address: bytes) -> int:
    """Bytes of the header of a packet to this address."""
    return IPV6_HEADER_SIZE if len(address) == 16 else IPV4_HEADER_SIZE
