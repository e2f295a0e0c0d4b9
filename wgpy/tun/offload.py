"""Super-packets, and one TUN read split into a burst of packets.

A TUN opened with IFF_VNET_HDR puts a `struct virtio_net_hdr` (linux/virtio_net.h) before each packet. With offloads
on, the kernel hands over TCP and UDP packets of up to 64 kB, to be cut into segments by whoever sends them, and takes
the same shape back (`wgpy.tun.merging`). `split` lays the segments into the slots of a burst with one copy, and
rewrites one header field of all of them at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple, Self

import numpy as np

from wgpy.burst import Burst, ViewCache, padded_length
from wgpy.constants import TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.tun.checksum import MODULUS, WORD, Rows, checksum, complement, ones_sum, pseudo_header_sum
from wgpy.tun.layout import U8, Column, Layout

VNET_HEADER_SIZE: Final = 10
NEEDS_CSUM: Final = 1
GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80

MAX_PACKET_SIZE: Final = 65535
# Room for the segments of any super-packet the kernel makes: 65,535 bytes at TCP's least MSS, 48 (TCP_MIN_SND_MSS).
SLOTS_SIZE: Final = 1 << 18
MERGEABLE: Final = frozenset({GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4})

TCP: Final = 6
UDP: Final = 17
CHECK_AT: Final = {TCP: 16, UDP: 6}  # where in the transport header the checksum is
_FIN: Final = 0x01
PSH: Final = 0x08
_CWR: Final = 0x80

vnet_header = Struct("=BBHHHH")  # native: the kernel's default unless TUNSETVNETLE
u16 = Struct(">H")
u32 = Struct(">I")
_ipv4_fields = Struct(">2xHH4xH").unpack_from  # total length, id, checksum

Packet = bytes | bytearray | memoryview


class VnetHeader(NamedTuple):
    """`struct virtio_net_hdr` in its legacy form of 10 bytes, in the machine's byte order."""

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def pack(self) -> bytes:
        return vnet_header.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read the first 10 bytes of `data`."""
        return cls._make(vnet_header.unpack_from(data))


PLAIN: Final = VnetHeader().pack()


def split(header: VnetHeader, packet: memoryview, slots: ViewCache, mtus: Sequence[int]) -> Burst | None:
    """Lay what one TUN read gave into `slots`: a plain packet, or the segments of a super-packet.

    Segment i's packet is at `i * stride + 16`, where stride is 16 + its padded length + 16 (`padded_length`, with
    `mtus`); the burst's view ends with the last slot. A plain packet may already lie at `slots.buffer[16:]`; a
    super-packet must lie in another buffer. Unfinished checksums are completed. Gives None for what the kernel would
    not send.
    """
    if header.gso_type == GSO_NONE:
        return _plain(header, packet, slots, mtus)
    segments = Segments.of(header, packet)
    if segments is None:
        return None
    return lay(segments, packet[: segments.end], packet[segments.end :], slots, mtus)


def lay(segments: Segments, start: Packet, payload: Packet, slots: ViewCache, mtus: Sequence[int]) -> Burst | None:
    """Lay segments into `slots` as `split` does: `start` is the headers of them all, `payload` the bytes they share.

    None if there are more than the slots hold. The start's lengths, checksums and IPv4 identification are the first's.
    """
    l4, end, size, count, is_tcp = segments.l4, segments.end, segments.size, segments.pieces, segments.protocol == TCP
    longest, last = end + size, end + len(payload) - (count - 1) * size
    stride = padded_length(longest, mtus) + TRANSPORT_OVERHEAD
    buffer = slots.buffer
    if count * stride > len(buffer):
        return None
    check = l4 + CHECK_AT[segments.protocol]
    layout = slots.recall(Layout, TRANSPORT_HEADER_SIZE, stride, count, l4, check, end, size)

    headers = bytearray(start)
    store_lengths(headers, 0, segments.version, segments.protocol, l4, longest)
    headers[check : check + 2] = bytes(2)
    if is_tcp:
        flags = start[l4 + 13]
        headers[l4 + 13] = flags & ~(_FIN | PSH | _CWR)
    layout.headers[:] = np.frombuffer(headers, U8)
    layout.payloads[:] = np.ndarray((count - 1, size), U8, payload)
    tail = TRANSPORT_HEADER_SIZE + (count - 1) * stride
    buffer[tail + end : tail + last] = payload[(count - 1) * size :]
    buffer[tail + last : tail + longest] = bytes(longest - last)  # so that every sum may run to the longest's end
    store_lengths(buffer, tail, segments.version, segments.protocol, l4, last)

    if segments.version == 4:
        stated, identification, ip_check = _ipv4_fields(start)
        np.add(layout.steps, identification, out=layout.ids, casting="unsafe")  # wraps as it is stored
        before = stated + identification + ip_check - longest - ones_sum(start[:l4])
        sums: Column = np.subtract(before, layout.ids, dtype=np.int64)
        sums[-1] += longest - last
        sums %= MODULUS
        layout.ip_checks[:] = sums
    if is_tcp:
        sequence = u32.unpack_from(start, l4 + 4)[0]
        np.add(layout.offsets, sequence, out=layout.sequences, casting="unsafe")
        buffer[tail + l4 + 13] |= flags & (_FIN | PSH)
        buffer[TRANSPORT_HEADER_SIZE + l4 + 13] |= flags & _CWR
    pseudo = pseudo_header_sum(start[segments.addresses], segments.protocol, longest - l4)
    rows = slots.recall(Rows, TRANSPORT_HEADER_SIZE + l4, stride, count, longest - l4)
    rows.store_checksums(layout.checks, pseudo)
    if last < longest:
        at = tail + check
        u16.pack_into(buffer, at, complement(last - longest - u16.unpack_from(buffer, at)[0]))
    view = buffer[: (count - 1) * stride + padded_length(last, mtus) + TRANSPORT_OVERHEAD]
    return Burst(view, stride, [longest] * (count - 1) + [last], slots)


def store_lengths(packet: bytearray | memoryview, at: int, version: int, protocol: int, l4: int, length: int) -> None:
    """Write into the headers of the packet at `at`, that it has `length` bytes."""
    if version == 4:
        u16.pack_into(packet, at + 2, length)
    else:
        u16.pack_into(packet, at + 4, length - 40)
    if protocol == UDP:
        u16.pack_into(packet, at + l4 + 4, length - l4)


def _plain(header: VnetHeader, packet: memoryview, slots: ViewCache, mtus: Sequence[int]) -> Burst | None:
    length, buffer = len(packet), slots.buffer
    stride = padded_length(length, mtus) + TRANSPORT_OVERHEAD
    if length < shortest(header) or stride > len(buffer):
        return None
    buffer[TRANSPORT_HEADER_SIZE : TRANSPORT_HEADER_SIZE + length] = packet
    if header.flags & NEEDS_CSUM:
        _complete(header, buffer, TRANSPORT_HEADER_SIZE, length)
    return Burst(buffer[:stride], stride, [length], slots)


def shortest(header: VnetHeader) -> int:
    """The bytes that a lone packet under this header has at least: an unfinished checksum lies within."""
    return header.csum_start + header.csum_offset + 2 if header.flags & NEEDS_CSUM else 1


def burst_key(packet: memoryview) -> bytes:
    """Lone packets may share a burst if this is equal: version, traffic class, destination. Empty if it is not IP."""
    length = len(packet)
    if length >= 20 and packet[0] >> 4 == 4:
        return bytes(packet[:2]) + packet[16:20]
    if length >= 40 and packet[0] >> 4 == 6:
        return bytes(packet[:2]) + packet[24:40]
    return b""


def join(first: Burst, header: VnetHeader, slots: ViewCache, lengths: list[int], mtus: Sequence[int]) -> Burst:
    """One burst of the lone packet `first` and those with the same burst key that were read into the slots after it.

    All were read under one header, and all but the last are as long as the first. Checksums are completed.
    """
    buffer, stride, before = slots.buffer, first.stride, len(lengths) - 1
    last = len(lengths) * stride + TRANSPORT_HEADER_SIZE
    if header.flags & NEEDS_CSUM:
        if before:
            at = stride + TRANSPORT_HEADER_SIZE + header.csum_start
            rows = slots.recall(Rows, at, stride, before, lengths[0] - header.csum_start)
            rows.store_checksums(np.ndarray((before,), WORD, buffer, at + header.csum_offset, (stride,)))
        _complete(header, buffer, last, lengths[-1])
    end = last - TRANSPORT_HEADER_SIZE + padded_length(lengths[-1], mtus) + TRANSPORT_OVERHEAD
    return Burst(buffer[:end], stride, first.lengths + lengths, slots)


def _complete(header: VnetHeader, slots: memoryview, at: int, length: int) -> None:
    start = at + header.csum_start
    u16.pack_into(slots, start + header.csum_offset, checksum(slots[start : at + length]))


class Segments(NamedTuple):
    """How a super-packet is to be cut: offsets of its transport header and payload, payload bytes a segment."""

    version: int
    protocol: int
    l4: int
    end: int
    size: int
    pieces: int
    addresses: slice

    @classmethod
    def of(cls, header: VnetHeader, packet: memoryview) -> Self | None:
        """Read from the packet's own headers: `hdr_len` is wrong for forwarded packets. None if they do not fit."""
        l4, length = header.csum_start, len(packet)
        if l4 < 20 or l4 + 8 > length:
            return None
        version = packet[0] >> 4
        next_header: int | None
        if version == 4 and l4 == (packet[0] & 15) * 4:
            tcp, next_header, addresses = GSO_TCPV4, packet[9], slice(12, 20)
        elif version == 6 and l4 >= 40:
            # Behind extension headers the kernel's word is taken for what the transport is.
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
