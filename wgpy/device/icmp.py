"""ICMP errors to the host's own applications, for packets that cannot be carried (kernel device.c, wg_xmit)."""

from __future__ import annotations

from typing import Final

from wgpy.device import ip
from wgpy.tun.checksum import checksum, pseudo_header_sum

_ICMP, _ICMPV6 = 1, 58
_HOST_UNREACHABLE: Final = bytes((3, 1, 0, 0, 0, 0, 0, 0))  # RFC 792
_ADDRESS_UNREACHABLE: Final = bytes((1, 3, 0, 0, 0, 0, 0, 0))  # RFC 4443, 3.1
_IPV4_ERROR_SIZE: Final = 576  # RFC 1812, 4.3.2.3: as much of the packet as fits
_IPV6_ERROR_SIZE: Final = 1280  # RFC 4443, 2.4 (c)
_HOP_LIMIT: Final = 64
_IPV4_QUERIES: Final = frozenset(map(bytes, ([0], [8], [9], [10], [13], [14], [15], [16], [17], [18])))  # no errors


def unreachable(packet: ip.Packet) -> bytes | None:
    """An error about `packet`, with its destination as source: host unreachable (IPv4) or address unreachable (IPv6).

    None where no error may be sent (RFC 1122, 3.2.2; RFC 4443, 2.4 (e)): about another error, a later fragment, a
    multicast or broadcast packet, or to a source that is not a single host.
    """
    match ip.version(packet):
        case 4:
            return _unreachable_ipv4(packet)
        case 6:
            return _unreachable_ipv6(packet)
        case _:
            return None


def _unreachable_ipv4(packet: ip.Packet) -> bytes | None:
    source, destination = bytes(packet[12:16]), bytes(packet[16:20])
    is_later_fragment = bool(packet[6] & 0x1F or packet[7])
    inner_type = bytes(packet[(packet[0] & 15) * 4 :][:1])
    is_error = packet[9] == _ICMP and inner_type not in _IPV4_QUERIES
    if is_later_fragment or is_error or _is_group(source) or _is_group(destination) or source[0] in (0, 127):
        return None
    message = bytearray(_HOST_UNREACHABLE + packet[: _IPV4_ERROR_SIZE - ip.IPV4_HEADER_SIZE - 8])
    message[2:4] = checksum(message).to_bytes(2, "big")
    header = bytearray(ip.IPV4_HEADER_SIZE)
    header[0], header[1], header[8], header[9] = 0x45, 0xC0, _HOP_LIMIT, _ICMP  # 0xC0: RFC 1812, 4.3.2.5
    header[2:4] = (len(header) + len(message)).to_bytes(2, "big")
    header[12:20] = destination + source
    header[10:12] = checksum(header).to_bytes(2, "big")
    return bytes(header + message)


def _unreachable_ipv6(packet: ip.Packet) -> bytes | None:
    source, destination = bytes(packet[8:24]), bytes(packet[24:40])
    is_error = packet[6] == _ICMPV6 and len(packet) > ip.IPV6_HEADER_SIZE and packet[ip.IPV6_HEADER_SIZE] < 128
    if is_error or source[0] == 0xFF or destination[0] == 0xFF or not any(source):
        return None
    message = bytearray(_ADDRESS_UNREACHABLE + packet[: _IPV6_ERROR_SIZE - ip.IPV6_HEADER_SIZE - 8])
    message[2:4] = checksum(message, pseudo_header_sum(destination + source, _ICMPV6, len(message))).to_bytes(2, "big")
    header = bytearray(8)
    header[0], header[6], header[7] = 0x60, _ICMPV6, _HOP_LIMIT
    header[4:6] = len(message).to_bytes(2, "big")
    return bytes(header + destination + source + message)


def _is_group(address: bytes) -> bool:
    """IPv4 multicast, reserved or broadcast."""
    return address[0] >= 224
