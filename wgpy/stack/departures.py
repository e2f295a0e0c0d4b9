"""Packets into the slots they are sealed in: the segments of one connection together, and lone packets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wgpy.burst import Burst, ViewCache, padded_length
from wgpy.constants import MAX_DATAGRAM, MAX_SEGMENTS, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.stack.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, TCP
from wgpy.tun.checksum import complement, ones_sum
from wgpy.tun.layout import CHECK_AT, u16
from wgpy.tun.splitting import Segments, lay

Packet = bytes | bytearray

_SLOTS: Final = 1 << 17  # bytes: MAX_SEGMENTS at an MTU of 1500 and more, or fewer longer ones


def finished(start: bytes, payload: Packet | memoryview) -> bytearray:
    """One whole TCP packet, its checksum written; `start` is its headers, in which the checksum is 0."""
    packet = bytearray(start)
    packet += payload
    l4, addresses = (IPV4_HEADER_SIZE, 12) if packet[0] >> 4 == 4 else (IPV6_HEADER_SIZE, 8)
    # The pseudo header's addresses are those before the TCP header, so one sum serves for both.
    total = ones_sum(packet[addresses:]) + TCP + len(packet) - l4
    u16.pack_into(packet, l4 + CHECK_AT[TCP], complement(total))
    return packet


class Batches:
    """Lone packets by what may share a burst: the destination, the traffic class, and the length when padded."""

    def __init__(self, mtu: int) -> None:
        self._mtus = (mtu,)
        self.kinds: dict[tuple[int, bytes], list[Packet]] = {}  # the one that came first leaves first

    def add(self, packet: Packet) -> None:
        """It leaves after those of its kind, but perhaps before others."""
        self.kinds.setdefault(self._kind(packet), []).append(packet)

    def would_keep_order(self, packet: Packet) -> bool:
        """Whether it would leave after all that are here."""
        return not self.kinds or (len(self.kinds) == 1 and self._kind(packet) in self.kinds)

    def pop(self) -> list[Packet]:
        """Those of the kind that came first."""
        return self.kinds.pop(next(iter(self.kinds)))

    def _kind(self, packet: Packet) -> tuple[int, bytes]:
        destination = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
        return padded_length(len(packet), self._mtus), bytes(packet[:2] + destination)


class Slots:
    """One buffer, in which the next burst overwrites the last."""

    def __init__(self, mtu: int) -> None:
        self._mtus = (mtu,)
        self._cache = ViewCache(memoryview(bytearray(max(_SLOTS, mtu + TRANSPORT_OVERHEAD))))
        longest = padded_length(mtu, self._mtus) + TRANSPORT_OVERHEAD
        self.most: int = max(1, min(MAX_SEGMENTS, MAX_DATAGRAM // longest))  # that one send with UDP_SEGMENT takes

    def segments(self, start: bytes, payload: Packet | memoryview, size: int) -> Burst:
        """One burst of `size` bytes of payload a segment, the last with what is left; `start` is their headers.

        The first segment's lengths and checksums in the headers are written here. There are two or more.
        """
        version = start[0] >> 4
        l4, addresses = (IPV4_HEADER_SIZE, slice(12, 20)) if version == 4 else (IPV6_HEADER_SIZE, slice(8, 40))
        pieces = -(-len(payload) // size)
        shape = Segments(version, TCP, l4, len(start), size, pieces, addresses)
        burst = lay(shape, start, payload, self._cache, self._mtus)
        assert burst is not None, "more than `most` segments"
        return burst

    def alone(self, packet: Packet) -> Burst:
        """A burst of one packet."""
        length, buffer, at = len(packet), self._cache.buffer, TRANSPORT_HEADER_SIZE
        stride = padded_length(length, self._mtus) + TRANSPORT_OVERHEAD
        buffer[at : at + length] = packet
        return Burst(buffer[:stride], stride, [length], self._cache)

    def lone(self, packets: Sequence[Packet]) -> Burst:
        """One burst of `most` packets at most, all of one kind of `Batches`."""
        lengths = [len(packet) for packet in packets]
        stride = padded_length(lengths[0], self._mtus) + TRANSPORT_OVERHEAD
        buffer, at = self._cache.buffer, TRANSPORT_HEADER_SIZE
        for packet in packets:
            buffer[at : at + len(packet)] = packet
            at += stride
        return Burst(buffer[: len(packets) * stride], stride, lengths, self._cache)
