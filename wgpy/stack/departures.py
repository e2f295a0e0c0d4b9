"""Packets into the slots they are sealed in: the segments of one connection together, and lone packets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wgpy.burst import Burst, ViewCache, padded_length
from wgpy.constants import MAX_DATAGRAM, MAX_SEGMENTS, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.stack.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, TCP
from wgpy.tun.checksum import checksum, pseudo_header_sum
from wgpy.tun.splitting import Segments, lay

Packet = bytes | bytearray | memoryview

_SLOTS: Final = 1 << 17  # bytes: MAX_SEGMENTS at an MTU of 1500 and more, or fewer longer ones


def finished(start: bytes, payload: Packet) -> bytes:
    """One whole TCP packet, its checksum written; `start` is its headers."""
    packet = bytearray(start)
    packet += payload
    is_v4 = packet[0] >> 4 == 4
    l4 = IPV4_HEADER_SIZE if is_v4 else IPV6_HEADER_SIZE
    addresses = packet[12:20] if is_v4 else packet[8:40]
    pseudo = pseudo_header_sum(addresses, TCP, len(packet) - l4)
    packet[l4 + 16 : l4 + 18] = checksum(memoryview(packet)[l4:], pseudo).to_bytes(2)
    return bytes(packet)


def go_together(first: bytes, other: bytes) -> bool:
    """Whether packets may be one burst: of one destination and traffic class, and none longer than the first."""
    if first[0] != other[0] or first[1] != other[1] or len(other) > len(first):
        return False
    return first[16:20] == other[16:20] if first[0] >> 4 == 4 else first[24:40] == other[24:40]


class Slots:
    """One buffer, in which the next burst overwrites the last."""

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu
        self._cache = ViewCache(memoryview(bytearray(max(_SLOTS, mtu + TRANSPORT_OVERHEAD))))
        # As many as one send with UDP_SEGMENT takes.
        self.most: int = max(1, min(MAX_SEGMENTS, MAX_DATAGRAM // (padded_length(mtu, (mtu,)) + TRANSPORT_OVERHEAD)))

    def segments(self, start: bytes, payload: Packet, size: int) -> Burst:
        """One burst of `size` bytes of payload a segment, the last with what is left; `start` is their headers.

        The first segment's lengths and checksums in the headers are written here. There are two or more.
        """
        version = start[0] >> 4
        l4, addresses = (IPV4_HEADER_SIZE, slice(12, 20)) if version == 4 else (IPV6_HEADER_SIZE, slice(8, 40))
        pieces = -(-len(payload) // size)
        shape = Segments(version, TCP, l4, len(start), size, pieces, addresses)
        burst = lay(shape, start, payload, self._cache, (self.mtu,))
        assert burst is not None, "more than `most` segments"
        return burst

    def lone(self, packets: Sequence[Packet]) -> Burst:
        """One burst of `most` packets at most, of one destination and ECN field, all but the last of one length."""
        lengths = [len(packet) for packet in packets]
        stride = padded_length(lengths[0], (self.mtu,)) + TRANSPORT_OVERHEAD
        buffer, at = self._cache.buffer, TRANSPORT_HEADER_SIZE
        for packet in packets:
            buffer[at : at + len(packet)] = packet
            at += stride
        end = (len(packets) - 1) * stride + padded_length(lengths[-1], (self.mtu,)) + TRANSPORT_OVERHEAD
        return Burst(buffer[:end], stride, lengths, self._cache)
