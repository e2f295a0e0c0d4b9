"""One TUN read becomes a burst of packets.

`split` lays the segments of a super-packet into the slots of a burst with one copy, and makes all their headers by one
addition. `finish` completes the checksums of packets that were gathered one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Self

import numpy as np

from wgpy.burst import Burst, ViewCache, padded_length
from wgpy.constants import TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.tun.checksum import MODULUS, WORD, Rows, checksum, complement, ones_sum, pseudo_header_sum
from wgpy.tun.layout import CHECK_AT, CWR, FIN, PSH, TCP, U8, U32, UDP, Column, store_lengths, u16
from wgpy.tun.virtio import GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader

# Room for the segments of any super-packet the kernel makes: 65,535 bytes at TCP's least MSS, 48 (TCP_MIN_SND_MSS).
SLOTS_SIZE: Final = 1 << 18

Packet = bytes | bytearray | memoryview


def split(
    header: VnetHeader, packet: memoryview, slots: ViewCache, mtus: Sequence[int], *, finished: bool = True
) -> Burst | None:
    """Put what one TUN read brought into `slots`: a plain packet, or the segments of a super-packet.

    Segment i's packet is at `i * stride + 16`, where stride is 16 + its padded length + 16 (`padded_length`, with
    `mtus`); the burst's view ends with the last slot. A plain packet may already be at `slots.buffer[16:]`; a
    super-packet must be in another buffer. Unfinished checksums are completed; unless `finished`, those of segments are
    left to `finish`. Returns None for a packet and header that do not fit together.
    """
    if header.gso_type == GSO_NONE:
        return _plain(header, packet, slots, mtus)
    segments = Segments.of(header, packet)
    if segments is None:
        return None
    return lay(segments, packet[: segments.end], packet[segments.end :], slots, mtus, finished=finished)


def lay(
    segments: Segments,
    start: Packet,
    payload: Packet,
    slots: ViewCache,
    mtus: Sequence[int],
    *,
    finished: bool = True,
) -> Burst | None:
    """Put segments into `slots` as `split` does: `start` is the headers of all, `payload` the bytes that they share.

    Returns None if the slots cannot hold them. Lengths and checksums in `start` do not matter; its IPv4 identification
    is that of the first segment. Unless `finished`, the checksum field of each has its pseudo header's sum.
    """
    l4, end, size, count, is_tcp = segments.l4, segments.end, segments.size, segments.pieces, segments.protocol == TCP
    longest, last = end + size, end + len(payload) - (count - 1) * size
    stride = padded_length(longest, mtus) + TRANSPORT_OVERHEAD
    buffer = slots.buffer
    if count * stride > len(buffer):
        return None
    check = l4 + CHECK_AT[segments.protocol]
    laid = slots.recall(_Laid, TRANSPORT_HEADER_SIZE, stride, count, segments.version, segments.protocol, l4, end, size)

    headers = bytearray(start)
    store_lengths(headers, 0, segments.version, segments.protocol, l4, longest)
    pseudo = pseudo_header_sum(start[segments.addresses], segments.protocol, longest - l4)
    u16.pack_into(headers, check, pseudo)
    flags = 0
    if is_tcp:
        flags = start[l4 + 13]
        headers[l4 + 13] = flags & ~(FIN | PSH | CWR)
    if segments.version == 4:
        headers[10:12] = bytes(2)
        ip_check = -ones_sum(headers[:l4]) % MODULUS
        u16.pack_into(headers, 10, ip_check)
    np.add(laid.steps, np.frombuffer(headers, U32), out=laid.headers, casting="unsafe")
    laid.payloads[:] = np.ndarray((count - 1, size), U8, payload)
    tail = TRANSPORT_HEADER_SIZE + (count - 1) * stride
    buffer[tail + end : tail + last] = payload[(count - 1) * size :]
    buffer[tail + last : tail + longest] = bytes(longest - last)  # so that all sums can have the same length
    if segments.version == 4:
        identification = u16.unpack_from(headers, 4)[0]
        if ip_check < count or identification + count > 0x10000:  # one of the two passes zero, where sums skip a number
            ids = identification + np.arange(count) & 0xFFFF
            laid.headers[:, 2] = (laid.headers[0, 2] & 0xFFFF0000) + (ip_check + identification - ids) % MODULUS
        if last < longest:
            u16.pack_into(buffer, tail + 10, (u16.unpack_from(buffer, tail + 10)[0] + longest - last) % MODULUS)
    store_lengths(buffer, tail, segments.version, segments.protocol, l4, last)
    if is_tcp:
        buffer[tail + l4 + 13] |= flags & (FIN | PSH)
        buffer[TRANSPORT_HEADER_SIZE + l4 + 13] |= flags & CWR
    if finished:
        rows = slots.recall(Rows, TRANSPORT_HEADER_SIZE + l4, stride, count, longest - l4)
        rows.store_checksums(laid.checks)
        if last < longest:
            at = tail + check
            u16.pack_into(buffer, at, complement(last - longest - u16.unpack_from(buffer, at)[0]))
    elif last < longest:
        u16.pack_into(buffer, tail + check, (pseudo + last - longest) % MODULUS)
    view = buffer[: (count - 1) * stride + padded_length(last, mtus) + TRANSPORT_OVERHEAD]
    return Burst(view, stride, [longest] * (count - 1) + [last], slots)


class _Laid:
    """Where `lay` puts the headers and payloads of `count` segments, and what it adds to each header.

    Headers are numbers of four bytes, so that those of all segments are made by one addition: from one to the next, the
    IPv4 identification grows by one and its checksum shrinks by one, and TCP's sequence number grows by `size`.
    """

    __slots__ = ("checks", "headers", "payloads", "steps")

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
        self.headers: Column = np.ndarray((count, end // 4), U32, buffer, at, (stride, 4))
        self.payloads: Column = np.ndarray((count - 1, size), U8, buffer, at + end, (stride, 1))
        self.checks: Column = np.ndarray((count,), WORD, buffer, at + l4 + CHECK_AT[protocol], (stride,))
        self.steps: Column = np.zeros((count, end // 4), np.uint32)
        steps = np.arange(count, dtype=np.uint32)
        if version == 4:
            self.steps[:, 1] = steps << 16
            self.steps[:, 2] = -steps
        if protocol == TCP:
            self.steps[:, l4 // 4 + 1] = steps * size


def _plain(header: VnetHeader, packet: memoryview, slots: ViewCache, mtus: Sequence[int]) -> Burst | None:
    length, buffer = len(packet), slots.buffer
    stride = padded_length(length, mtus) + TRANSPORT_OVERHEAD
    if not length or stride > len(buffer) or (header.flags and length < shortest(header)):
        return None
    buffer[TRANSPORT_HEADER_SIZE : TRANSPORT_HEADER_SIZE + length] = packet
    if header.flags & NEEDS_CSUM:
        _complete(header, buffer, TRANSPORT_HEADER_SIZE, length)
    return Burst(buffer[:stride], stride, [length], slots)


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


def unfinished(header: VnetHeader) -> VnetHeader:
    """What describes a segment of a super-packet with this header, if it is not `finished`."""
    check = CHECK_AT[UDP if header.gso_type == GSO_UDP_L4 else TCP]  # where `lay` has put it, whatever the header says
    return VnetHeader(NEEDS_CSUM, GSO_NONE, 0, 0, header.csum_start, check)


def _complete(header: VnetHeader, slots: memoryview, at: int, length: int) -> None:
    start = at + header.csum_start
    u16.pack_into(slots, start + header.csum_offset, checksum(slots[start : at + length]))


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
    def of(cls, header: VnetHeader, packet: memoryview) -> Self | None:
        """Read it from the packet: `hdr_len` is wrong for forwarded ones. None if packet and header disagree."""
        l4, length = header.csum_start, len(packet)
        if l4 < 20 or l4 + 8 > length:
            return None
        version = packet[0] >> 4
        next_header: int | None
        if version == 4 and l4 == (packet[0] & 15) * 4:
            tcp, next_header, addresses = GSO_TCPV4, packet[9], slice(12, 20)
        elif version == 6 and l4 >= 40 and l4 % 8 == 0:
            # Behind extension headers, the kernel is trusted about the transport protocol.
            tcp, next_header, addresses = GSO_TCPV6, packet[6] if l4 == 40 else None, slice(8, 40)
        else:
            return None
        if header.gso_type & ~GSO_ECN == tcp and l4 + 20 <= length:
            protocol, end = TCP, l4 + (packet[l4 + 12] >> 4) * 4
        elif header.gso_type == GSO_UDP_L4:
            protocol, end = UDP, l4 + 8
        else:
            return None
        size = min(header.gso_size, length - end)
        if size <= 0 or end < l4 + (20 if protocol == TCP else 8) or next_header not in (protocol, None):
            return None
        return cls(version, protocol, l4, end, size, -(-(length - end) // size), addresses)
