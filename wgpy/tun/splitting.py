"""One TUN read becomes a burst of packets.

`split` lays the segments of a super-packet into the slots of a burst with one copy, and makes all their headers by one
addition. `finish` completes the checksums of packets that were gathered one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from wgpy.burst import Burst, ViewCache, padded_length
from wgpy.constants import PADDING_MULTIPLE, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.tun.checksum import MODULUS, WORD, Rows, checksum, ones_sum, pseudo_header_sum
from wgpy.tun.layout import CHECK_AT, CWR, FIN, PSH, TCP, U8, U32, UDP, Column, store_lengths, u16
from wgpy.tun.virtio import GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader

# Room for the segments of any super-packet the kernel makes: 65,535 bytes at TCP's least MSS, 48 (TCP_MIN_SND_MSS).
SLOTS_SIZE: Final = 1 << 18

_AT_ENDS: Final = FIN | PSH | CWR  # flags that only the last segment has, or the first
_NO_CHECKSUM: Final = bytes(2)

Packet = bytes | bytearray | memoryview


def split(header: VnetHeader, packet: memoryview, slots: ViewCache, mtus: tuple[int, ...]) -> Burst | None:
    """Put what one TUN read brought into `slots`: a plain packet, or the segments of a super-packet.

    Segment i's packet is at `i * stride + 16`, where stride is 16 + its padded length + 16 (`padded_length`, with
    `mtus`); the burst's view ends with the last slot. A plain packet may already be at `slots.buffer[16:]`; a
    super-packet must be in another buffer. Unfinished checksums are completed. Returns None for a packet and header
    that do not fit together.
    """
    if header.gso_type == GSO_NONE:
        return _plain(header, packet, slots, mtus)
    segments = Segments.of(header, packet)
    if segments is None:
        return None
    return lay(segments, packet[: segments.end], packet[segments.end :], slots, mtus)


def lay(segments: Segments, start: Packet, payload: Packet, slots: ViewCache, mtus: tuple[int, ...]) -> Burst | None:
    """Put segments into `slots` as `split` does: `start` is the headers of all, `payload` the bytes that they share.

    Returns None if the slots cannot hold them. Lengths and checksums in `start` do not matter; its IPv4 identification
    is that of the first segment.
    """
    burst = Burst(slots.buffer, segments.stride(mtus), [], slots)
    if segments.pieces * burst.stride > len(slots.buffer):
        return None
    lay_behind(burst, segments, start, payload, slots, mtus)
    return burst


def lay_behind(
    burst: Burst, segments: Segments, start: Packet, payload: Packet, slots: ViewCache, mtus: tuple[int, ...]
) -> None:
    """Put segments behind the packets of a burst in `slots`, as `lay` does. All are equally long, and there is room."""
    l4, size, count, stride, buffer = segments.l4, segments.size, segments.pieces, burst.stride, slots.buffer
    longest, last = segments.end + size, segments.end + len(payload) - (count - 1) * size
    first = len(burst.lengths)
    after, end = first + count, (first + count) * stride
    laid = place(segments, start, payload, slots, first, stride, after)
    if last < longest:
        tail = TRANSPORT_HEADER_SIZE + end - stride
        buffer[tail + last : tail + longest] = bytes(longest - last)  # so that all sums can have the same length
        end += padded_length(last, mtus) + TRANSPORT_OVERHEAD - stride
    rows = slots.recall(Rows, TRANSPORT_HEADER_SIZE + first * stride + l4, stride, count, longest - l4)
    rows.store_checksums(laid.checks[first:after])
    burst.lengths += [longest] * (count - 1)
    burst.lengths.append(last)
    burst.view = buffer[:end]


def place(
    segments: Segments, start: Packet, payload: Packet, slots: ViewCache, first: int, stride: int, most: int
) -> _Laid:
    """Put segments into slots as `lay` does, from slot `first` on. There is room for `most` in all.

    They are unfinished: the checksum field of each has its pseudo header's sum, for `finish`. The super-packet may
    itself be where the first packet will be. Returns where all lies.
    """
    end, size = segments.end, segments.size
    laid, (whole, rest) = _laid(segments, slots, stride, most), divmod(len(payload), size)
    tail = TRANSPORT_HEADER_SIZE + (first + whole) * stride
    if rest:
        slots.buffer[tail + end : tail + end + rest] = payload[whole * size :]
    laid.payloads[first : first + whole] = np.ndarray((whole, size), U8, payload)
    _write_headers(segments, start, laid, slots.buffer, first, stride)
    if rest:
        shorten(segments, slots.buffer, tail, end + rest)
    return laid


def _laid(segments: Segments, slots: ViewCache, stride: int, most: int) -> _Laid:
    version, protocol, l4, end, size, _, _ = segments
    return slots.recall(_Laid, TRANSPORT_HEADER_SIZE, stride, most, version, protocol, l4, end, size)


def _write_headers(segments: Segments, start: Packet, laid: _Laid, buffer: memoryview, first: int, stride: int) -> None:
    """Write the headers of one super-packet's segments, unfinished, as if the last were as long as the others."""
    version, protocol, l4, _, _, count, addresses = segments
    headers, ends = bytearray(start), 0
    store_lengths(headers, 0, version, protocol, l4, laid.longest)
    u16.pack_into(headers, laid.check_at, pseudo_header_sum(start[addresses], protocol, laid.longest - l4))
    if protocol == TCP and (ends := start[l4 + 13] & _AT_ENDS):
        headers[l4 + 13] -= ends
    if version == 4:
        headers[10:12] = _NO_CHECKSUM
        ip_check = -ones_sum(headers[:l4]) % MODULUS
        u16.pack_into(headers, 10, ip_check)
    rows = laid.headers[first : first + count]
    np.add(laid.steps[:count], np.frombuffer(headers, U32), out=rows, casting="unsafe")
    if version == 4:
        identification = u16.unpack_from(headers, 4)[0]
        if ip_check < count or identification + count > 0x10000:  # one of the two passes zero, where sums skip a number
            ids = identification + np.arange(count) & 0xFFFF
            rows[:, 2] = (rows[0, 2] & 0xFFFF0000) + (ip_check + identification - ids) % MODULUS
    if ends:
        at = TRANSPORT_HEADER_SIZE + first * stride + l4 + 13
        buffer[at + (count - 1) * stride] |= ends & (FIN | PSH)
        buffer[at] |= ends & CWR


def shorten(segments: Segments, buffer: memoryview, at: int, length: int) -> None:
    """Make the packet at `at`, which is unfinished and as long as the others, one of `length` bytes."""
    version, protocol, l4, end, size, _, _ = segments
    missing, check = end + size - length, at + l4 + CHECK_AT[protocol]
    if version == 4:
        u16.pack_into(buffer, at + 10, (u16.unpack_from(buffer, at + 10)[0] + missing) % MODULUS)
    u16.pack_into(buffer, check, (u16.unpack_from(buffer, check)[0] - missing) % MODULUS)
    store_lengths(buffer, at, version, protocol, l4, length)


class _Laid:
    """Where the headers and payloads of segments are in `count` slots, and what `lay` adds to each header.

    Headers are numbers of four bytes, so that those of all segments are made by one addition: from one to the next, the
    IPv4 identification grows by one and its checksum shrinks by one, and TCP's sequence number grows by `size`.
    """

    __slots__ = ("check_at", "checks", "headers", "longest", "payloads", "steps")

    def __init__(
        self,
        buffer: memoryview,
        at: int,
        stride: int,
        count: int,
        version: int,
        protocol: int,
        l4: int,
        end: int,
        size: int,
    ) -> None:
        self.longest: int = end + size
        self.check_at: int = l4 + CHECK_AT[protocol]
        self.headers: Column = np.ndarray((count, end // 4), U32, buffer, at, (stride, 4))
        self.payloads: Column = np.ndarray((count, size), U8, buffer, at + end, (stride, 1))
        self.checks: Column = np.ndarray((count,), WORD, buffer, at + self.check_at, (stride,))
        self.steps: Column = np.zeros((count, end // 4), np.uint32)
        steps = np.arange(count, dtype=np.uint32)
        if version == 4:
            self.steps[:, 1] = steps << 16
            self.steps[:, 2] = -steps
        if protocol == TCP:
            self.steps[:, l4 // 4 + 1] = steps * size


def _plain(header: VnetHeader, packet: memoryview, slots: ViewCache, mtus: tuple[int, ...]) -> Burst | None:
    end = TRANSPORT_HEADER_SIZE + len(packet)
    if end > len(slots.buffer):
        return None
    slots.buffer[TRANSPORT_HEADER_SIZE:end] = packet
    burst = in_place(len(packet), slots, mtus)
    return burst if burst is not None and complete(header, burst) else None


def in_place(length: int, slots: ViewCache, mtus: tuple[int, ...]) -> Burst | None:
    """The burst of a lone packet of `length` bytes that was read to where it stays, `slots.buffer[16:]`."""
    buffer, padded = slots.buffer, (length + PADDING_MULTIPLE - 1) & -PADDING_MULTIPLE
    if not mtus or padded > mtus[0]:
        padded = padded_length(length, mtus)
    stride = padded + TRANSPORT_OVERHEAD
    if not length or stride > len(buffer):
        return None
    return Burst(buffer[:stride], stride, [length], slots)


def complete(header: VnetHeader, burst: Burst) -> bool:
    """Complete the checksum of a lone packet, if its header says that it is unfinished; False if it is not in there."""
    if header.flags & NEEDS_CSUM:
        length = burst.lengths[0]
        if length < shortest(header):
            return False
        _complete(header, burst.view, TRANSPORT_HEADER_SIZE, length)
    return True


def shortest(header: VnetHeader) -> int:
    """The fewest bytes that a lone packet with this header has: an unfinished checksum is within the packet."""
    return header.csum_start + header.csum_offset + 2 if header.flags & NEEDS_CSUM else 1


def burst_key(packet: memoryview) -> bytes:
    """Lone packets with equal keys can share a burst: version, traffic class, destination. Empty if it is not IP."""
    length = len(packet)
    if length >= 20 and packet[0] >> 4 == 4:
        return bytes(packet[:2]) + packet[16:20]
    if length >= 40 and packet[0] >> 4 == 6:
        return bytes((packet[0], packet[1] & 0xF0)) + packet[24:40]  # without the flow label
    return b""


def finish(slots: ViewCache, header: VnetHeader, stride: int, first: int, lengths: Sequence[int]) -> None:
    """Complete the checksums of the packets in the slots from number `first` on.

    They were read with the same header, or have this `unfinished` one. `lengths` are those of all packets; all but the
    last are equally long.
    """
    buffer, count, at = slots.buffer, len(lengths) - first, first * stride + TRANSPORT_HEADER_SIZE
    if not header.flags & NEEDS_CSUM or not count:
        return
    alike = count if count > 1 and lengths[-1] == lengths[0] else count - 1
    if alike:
        start = at + header.csum_start
        rows = slots.recall(Rows, start, stride, alike, lengths[0] - header.csum_start)
        rows.store_checksums(np.ndarray((alike,), WORD, buffer, start + header.csum_offset, (stride,)))
    if alike < count:
        _complete(header, buffer, at + alike * stride, lengths[-1])


def _complete(header: VnetHeader, slots: memoryview, at: int, length: int) -> None:
    start = at + header.csum_start
    u16.pack_into(slots, start + header.csum_offset, checksum(slots[start : at + length]))


@lru_cache(maxsize=64)
def _unfinished(l4: int, check: int) -> VnetHeader:
    return VnetHeader(NEEDS_CSUM, GSO_NONE, 0, 0, l4, check)


class Segments(NamedTuple):
    """How to cut a super-packet: the offsets of its transport header and payload, and payload bytes per segment."""

    version: int
    protocol: int
    l4: int
    end: int
    size: int
    pieces: int
    addresses: slice

    @classmethod
    def of(cls, header: VnetHeader, packet: memoryview) -> Segments | None:
        """Read it from the packet: `hdr_len` is wrong for forwarded ones. None if packet and header disagree."""
        l4, length = header.csum_start, len(packet)
        if l4 < 20 or l4 + 8 > length:
            return None
        next_header = packet[9 if packet[0] >> 4 == 4 else 6]
        return _segments(header, length, packet[0], next_header, packet[l4 + 12] if l4 + 20 <= length else 0)

    def stride(self, mtus: tuple[int, ...]) -> int:
        """Bytes from one segment's slot to the next."""
        return padded_length(self.end + self.size, mtus) + TRANSPORT_OVERHEAD

    @property
    def unfinished(self) -> VnetHeader:
        """What describes each segment, where its checksum is yet to be completed."""
        return _unfinished(self.l4, CHECK_AT[self.protocol])

    def last(self, packet: memoryview) -> int:
        """The length of the last segment's packet in bytes."""
        return len(packet) - (self.pieces - 1) * self.size


@lru_cache(maxsize=1024)
def _segments(header: VnetHeader, length: int, first: int, next_header: int, tcp_offset: int) -> Segments | None:
    """How to cut a super-packet of `length` bytes with these bytes in its headers; most are like one before."""
    l4, version = header.csum_start, first >> 4
    if version == 4 and l4 == (first & 15) * 4:
        tcp, addresses = GSO_TCPV4, slice(12, 20)
    elif version == 6 and l4 >= 40 and l4 % 8 == 0:
        tcp, addresses = GSO_TCPV6, slice(8, 40)
    else:
        return None
    if header.gso_type & ~GSO_ECN == tcp and l4 + 20 <= length:
        protocol, end = TCP, l4 + (tcp_offset >> 4) * 4
    elif header.gso_type == GSO_UDP_L4:
        protocol, end = UDP, l4 + 8
    else:
        return None
    size = min(header.gso_size, length - end)
    # Behind extension headers, the kernel is trusted about the transport protocol.
    has_protocol = next_header == protocol or (version == 6 and l4 > 40)
    if size <= 0 or end < l4 + (20 if protocol == TCP else 8) or not has_protocol:
        return None
    return Segments(version, protocol, l4, end, size, -(-(length - end) // size), addresses)
