"""ICMP (RFC 792) and ICMPv6 (RFC 4443): echoes, and errors about what was sent."""

from __future__ import annotations

from errno import EACCES, ECONNREFUSED, EHOSTUNREACH, ENETUNREACH
from typing import Final, NamedTuple

from wgpy.device.ratelimiter import RateLimiter
from wgpy.stack import ip
from wgpy.tun.checksum import checksum, ones_sum, pseudo_header_sum

ECHO_REQUEST: Final = {4: 8, 16: 128}  # by the length of an address
ECHO_REPLY: Final = {4: 0, 16: 129}
_UNREACHABLE: Final = {4: 3, 16: 1}
_PORT_UNREACHABLE: Final = {4: 3, 16: 4}  # codes
_FRAGMENTATION_NEEDED: Final = 4
_PACKET_TOO_BIG: Final = 2
_QUOTED: Final = {4: 576 - 28, 16: 1280 - 48}  # bytes at the most of the packet that an error is about
_HEADER_SIZE: Final = 8
ERRORS_PER_SECOND: Final = 1000  # to all together, and
ERRORS_AT_ONCE: Final = 50  # the kernel's icmp_msgs_per_sec and icmp_msgs_burst
_LEAST_MTU: Final = {4: 576, 16: 1280}  # RFC 1191, 3 (a forged 68 would cost us much), RFC 8200, 5

# RFC 1122, 4.2.3.9, and what Linux makes of the codes (icmp.c, icmp_err_convert; icmpv6_err_convert).
_ERRORS_V4: Final = {0: ENETUNREACH, 2: ECONNREFUSED, 3: ECONNREFUSED, 6: ENETUNREACH, 11: ENETUNREACH}
_ERRORS_V6: Final = {0: ENETUNREACH, 1: EACCES, 4: ECONNREFUSED, 5: EACCES, 6: EACCES}


class Echo(NamedTuple):
    """An echo request or reply. `peer` is the other host's address."""

    peer: bytes
    is_reply: bool
    identifier: int
    sequence: int
    payload: bytes


class Unreachable(NamedTuple):
    """What could not be delivered: the addresses and ports it bore, and the first four bytes after its ports.

    `mtu` is what the path takes, if the packet was too long, else None; `error` the errno that an
    application would be told.
    """

    source: bytes
    destination: bytes
    protocol: int
    ports: bytes
    number: int
    mtu: int | None
    error: int


class ErrorLimit:
    """How many errors a host sends: few to one source, and not many to all, whose addresses may be forged.

    As the kernel (net/ipv4/icmp.c, icmp_global_allow); echo replies are not limited.
    """

    def __init__(self) -> None:
        self._by_source = RateLimiter()
        self._tokens = float(ERRORS_AT_ONCE)
        self._at = 0.0

    def allow(self, source: bytes, now: float) -> bool:
        """Whether `source`, an address of 4 or 16 bytes, may be sent one more error at `now` (seconds)."""
        tokens = min(float(ERRORS_AT_ONCE), self._tokens + (now - self._at) * ERRORS_PER_SECOND)
        self._at, self._tokens = now, tokens
        if tokens < 1 or not self._by_source.allow(source, now):
            return False
        self._tokens -= 1
        return True


def parse(packet: ip.Packet) -> Echo | Unreachable | ip.Drop | None:
    """Read an ICMP message; None for one that asks nothing of a host."""
    message, size = packet.payload, len(packet.source)
    if len(message) < _HEADER_SIZE:
        return ip.Drop.MALFORMED
    pseudo = pseudo_header_sum(packet.source + packet.destination, ip.ICMPV6, len(message)) if size == 16 else 0
    if (ones_sum(message) + pseudo) % 0xFFFF:
        return ip.Drop.CHECKSUM
    kind, code = message[0], message[1]
    if kind in (ECHO_REQUEST[size], ECHO_REPLY[size]):
        identifier, sequence = int.from_bytes(message[4:6]), int.from_bytes(message[6:8])
        return Echo(packet.source, kind == ECHO_REPLY[size], identifier, sequence, bytes(message[8:]))
    if size == 4 and kind == _UNREACHABLE[4]:
        mtu = int.from_bytes(message[6:8]) if code == _FRAGMENTATION_NEEDED else None
        return _quoted(message[8:], size, mtu, _ERRORS_V4.get(code, EHOSTUNREACH))
    if size == 16 and kind == _UNREACHABLE[16]:
        return _quoted(message[8:], size, None, _ERRORS_V6.get(code, EHOSTUNREACH))
    if size == 16 and kind == _PACKET_TOO_BIG:
        return _quoted(message[8:], size, int.from_bytes(message[4:8]), EHOSTUNREACH)
    return None


def _quoted(quote: memoryview, size: int, mtu: int | None, error: int) -> Unreachable | ip.Drop:
    """Which packet of ours an error is about: at least its header and eight bytes more are there."""
    header = ip.IPV4_HEADER_SIZE if size == 4 else ip.IPV6_HEADER_SIZE
    if len(quote) < header + 8 or quote[0] >> 4 != (4 if size == 4 else 6):
        return ip.Drop.MALFORMED
    if size == 4:
        header = (quote[0] & 15) * 4
        protocol, source, destination = quote[9], bytes(quote[12:16]), bytes(quote[16:20])
    else:
        protocol, source, destination = quote[6], bytes(quote[8:24]), bytes(quote[24:40])
    if header < ip.IPV4_HEADER_SIZE or len(quote) < header + 8:
        return ip.Drop.MALFORMED
    if mtu is not None:
        mtu = max(mtu, _LEAST_MTU[size])
    ports, number = bytes(quote[header : header + 4]), int.from_bytes(quote[header + 4 : header + 8])
    return Unreachable(source, destination, protocol, ports, number, mtu, error)


def echo(source: bytes, destination: bytes, identifier: int, sequence: int, payload: bytes, *, is_reply: bool) -> bytes:
    """The message of an echo request or reply, to be put behind an IP header."""
    kind = (ECHO_REPLY if is_reply else ECHO_REQUEST)[len(source)]
    body = identifier.to_bytes(2) + sequence.to_bytes(2) + payload
    return _message(source, destination, bytes((kind, 0)), body)


def port_unreachable(source: bytes, destination: bytes, packet: memoryview) -> bytes:
    """The message that says to the sender of `packet` that nobody listens at its port."""
    size = len(source)
    quote = bytes(4) + bytes(packet[: _QUOTED[size]])
    return _message(source, destination, bytes((_UNREACHABLE[size], _PORT_UNREACHABLE[size])), quote)


def _message(source: bytes, destination: bytes, kind: bytes, body: bytes) -> bytes:
    message = kind + bytes(2) + body
    pseudo = pseudo_header_sum(source + destination, ip.ICMPV6, len(message)) if len(source) == 16 else 0
    return kind + checksum(message, pseudo).to_bytes(2) + body
