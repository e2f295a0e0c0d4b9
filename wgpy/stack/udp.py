"""UDP (RFC 768): sockets of a host, each with a bounded queue of what has come."""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import Final, NamedTuple

from wgpy.stack import ip
from wgpy.tun.checksum import checksum, ones_sum, pseudo_header_sum

HEADER_SIZE: Final = 8
MAX_PAYLOAD: Final = {4: 65507, 16: 65527}  # bytes, by the length of an address
QUEUE_BYTES: Final = 212992  # of a socket that nobody reads: the kernel's net.core.rmem_default
_OVERHEAD: Final = 256  # bytes that each datagram counts for besides its own, so that empty ones are bounded too

_header = Struct(">HHHH")

Address = tuple[bytes, int]  # of 4 or 16 bytes, and the port


class Datagram(NamedTuple):
    """One received datagram, whole: where it came from and to, and what it carries."""

    source: Address
    destination: Address
    payload: bytes


def parse(packet: ip.Packet) -> Datagram | ip.Drop:
    """Read a datagram; over IPv6 one without a checksum is refused (RFC 8200, 8.1)."""
    payload = packet.payload
    if len(payload) < HEADER_SIZE:
        return ip.Drop.MALFORMED
    source_port, port, length, check = _header.unpack_from(payload)
    if not HEADER_SIZE <= length <= len(payload):
        return ip.Drop.MALFORMED
    payload = payload[:length]
    if check or len(packet.source) == 16:
        pseudo = pseudo_header_sum(packet.source + packet.destination, ip.UDP, length)
        if not check or (ones_sum(payload) + pseudo) % 0xFFFF:
            return ip.Drop.CHECKSUM
    return Datagram((packet.source, source_port), (packet.destination, port), bytes(payload[HEADER_SIZE:]))


def pack(source: Address, destination: Address, payload: bytes) -> bytes:
    """A datagram to be put behind an IP header."""
    length = HEADER_SIZE + len(payload)
    head = _header.pack(source[1], destination[1], length, 0)
    pseudo = pseudo_header_sum(source[0] + destination[0], ip.UDP, length)
    check = checksum(head + payload, pseudo)
    return head[:6] + check.to_bytes(2) + payload


class UdpSocket:
    """A bound port. `received` is what has come and was not taken; `error` the last ICMP error about what was sent.

    `address` is None for all of the host's.
    """

    __slots__ = ("_held", "address", "error", "peer", "port", "received")

    def __init__(self, address: bytes | None, port: int) -> None:
        self.address: bytes | None = address
        self.port: int = port
        self.peer: Address | None = None  # where alone it sends to and receives from, if it is connected
        self.received: deque[Datagram] = deque()
        self.error: OSError | None = None
        self._held = 0

    def arrive(self, datagram: Datagram) -> bool:
        """Queue a datagram. False if there is no room for it."""
        size = len(datagram.payload) + _OVERHEAD
        if self._held + size > QUEUE_BYTES:
            return False
        self._held += size
        self.received.append(datagram)
        return True

    def take(self) -> Datagram | None:
        """The oldest datagram that was not taken yet."""
        if not self.received:
            return None
        datagram = self.received.popleft()
        self._held -= len(datagram.payload) + _OVERHEAD
        return datagram
