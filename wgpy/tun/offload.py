"""Super-packets: one TUN read split into a burst of packets, and a burst merged into few TUN writes.

A TUN opened with IFF_VNET_HDR puts a `struct virtio_net_hdr` (linux/virtio_net.h) before each packet. With offloads
on, the kernel hands over TCP and UDP packets of up to 64 kB, to be cut into segments by whoever sends them, and takes
the same shape back.

- `split` lays the segments into the slots of a burst with one copy, and rewrites one header field of all of them at a
  time.
- `merge` finds runs of packets that such a split could have made, verifies each checksum (what was corrupted before
  the tunnel must not be signed as good after it), and makes each run one scattered write. Payloads are copied together,
  which costs a third of cutting a view of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple, Self

import numpy as np

from wgpy.burst import Burst, Cuts, leading, padded_length
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

_TCP: Final = 6
_UDP: Final = 17
_CHECK_AT: Final = {_TCP: 16, _UDP: 6}  # where in the transport header the checksum is
_FIN: Final = 0x01
_PSH: Final = 0x08
_ACK: Final = 0x10
_CWR: Final = 0x80
_DONT_FRAGMENT: Final = 0x40
_MAX_UDP_SEGMENTS: Final = 64  # UDP_MAX_SEGMENTS of the kernels that came with USO

_vnet = Struct("=BBHHHH")  # native: the kernel's default unless TUNSETVNETLE
_u16 = Struct(">H")
_u32 = Struct(">I")
_ipv4_fields = Struct(">2xHH4xH").unpack_from  # total length, id, checksum
_tcp_fields = Struct(">IIBxH").unpack_from  # sequence, acknowledgement, header length, window

IoVector = list[bytes | bytearray | memoryview]


class VnetHeader(NamedTuple):
    """`struct virtio_net_hdr` in its legacy form of 10 bytes, in the machine's byte order."""

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def pack(self) -> bytes:
        return _vnet.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read the first 10 bytes of `data`."""
        return cls._make(_vnet.unpack_from(data))


PLAIN: Final = VnetHeader().pack()


# From the TUN.


def split(header: VnetHeader, packet: memoryview, slots: Cuts, mtus: Sequence[int]) -> Burst | None:
    """Lay what one TUN read gave into `slots`: a plain packet, or the segments of a super-packet.

    Segment i's packet is at `i * stride + 16`, where stride is 16 + its padded length + 16 (`padded_length`, with
    `mtus`); the burst's view ends with the last slot. A plain packet may already lie at `slots.buffer[16:]`; a
    super-packet must lie in another buffer. Unfinished checksums are completed. Gives None for what the kernel would
    not send.
    """
    if header.gso_type == GSO_NONE:
        return _plain(header, packet, slots, mtus)
    segments = _Segments.of(header, packet)
    if segments is None:
        return None
    l4, end, size, count, is_tcp = segments.l4, segments.end, segments.size, segments.pieces, segments.protocol == _TCP
    longest, last = end + size, len(packet) - (count - 1) * size
    stride = padded_length(longest, mtus) + TRANSPORT_OVERHEAD
    buffer = slots.buffer
    if count * stride > len(buffer):
        return None
    check = l4 + _CHECK_AT[segments.protocol]
    layout = slots.recall(Layout, TRANSPORT_HEADER_SIZE, stride, count, l4, check, end, size)

    headers = bytearray(packet[:end])
    _store_lengths(headers, 0, segments, longest)
    headers[check : check + 2] = bytes(2)
    if is_tcp:
        flags = packet[l4 + 13]
        headers[l4 + 13] = flags & ~(_FIN | _PSH | _CWR)
    layout.headers[:] = np.frombuffer(headers, U8)
    layout.payloads[:] = np.ndarray((count - 1, size), U8, packet, end)
    tail = TRANSPORT_HEADER_SIZE + (count - 1) * stride
    buffer[tail + end : tail + last] = packet[end + (count - 1) * size :]
    buffer[tail + last : tail + longest] = bytes(longest - last)  # so that every sum may run to the longest's end
    _store_lengths(buffer, tail, segments, last)

    if segments.version == 4:
        stated, identification, ip_check = _ipv4_fields(packet)
        np.add(layout.steps, identification, out=layout.ids, casting="unsafe")  # wraps as it is stored
        before = stated + identification + ip_check - longest - ones_sum(packet[:l4])
        sums: Column = np.subtract(before, layout.ids, dtype=np.int64)
        sums[-1] += longest - last
        sums %= MODULUS
        layout.ip_checks[:] = sums
    if is_tcp:
        sequence = _u32.unpack_from(packet, l4 + 4)[0]
        np.add(layout.offsets, sequence, out=layout.sequences, casting="unsafe")
        buffer[tail + l4 + 13] |= flags & (_FIN | _PSH)
        buffer[TRANSPORT_HEADER_SIZE + l4 + 13] |= flags & _CWR
    pseudo = pseudo_header_sum(packet[segments.addresses], segments.protocol, longest - l4)
    rows = slots.recall(Rows, TRANSPORT_HEADER_SIZE + l4, stride, count, longest - l4)
    rows.store_checksums(layout.checks, pseudo)
    if last < longest:
        at = tail + check
        _u16.pack_into(buffer, at, complement(last - longest - _u16.unpack_from(buffer, at)[0]))
    view = buffer[: (count - 1) * stride + padded_length(last, mtus) + TRANSPORT_OVERHEAD]
    return Burst(view, stride, [longest] * (count - 1) + [last], slots)


def _store_lengths(packet: bytearray | memoryview, at: int, kind: _Segments | _Lead, length: int) -> None:
    """Write into the headers of the packet at `at`, which is of this kind, that it has `length` bytes."""
    if kind.version == 4:
        _u16.pack_into(packet, at + 2, length)
    else:
        _u16.pack_into(packet, at + 4, length - 40)
    if kind.protocol == _UDP:
        _u16.pack_into(packet, at + kind.l4 + 4, length - kind.l4)


def _plain(header: VnetHeader, packet: memoryview, slots: Cuts, mtus: Sequence[int]) -> Burst | None:
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


def kinship(packet: memoryview) -> bytes:
    """What lone packets share if they may go as one burst: version, traffic class, destination. Empty: not IP."""
    length = len(packet)
    if length >= 20 and packet[0] >> 4 == 4:
        return bytes(packet[:2]) + packet[16:20]
    if length >= 40 and packet[0] >> 4 == 6:
        return bytes(packet[:2]) + packet[24:40]
    return b""


def join(first: Burst, header: VnetHeader, slots: Cuts, lengths: list[int], mtus: Sequence[int]) -> Burst:
    """One burst of the lone packet `first` and those of its kin that were read into the slots after it.

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
    _u16.pack_into(slots, start + header.csum_offset, checksum(slots[start : at + length]))


class _Segments(NamedTuple):
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
            protocol, end = _TCP, l4 + (packet[l4 + 12] >> 4) * 4
        elif header.gso_type == GSO_UDP_L4:
            protocol, end = _UDP, l4 + 8
        else:
            return None
        size = min(header.gso_size, length - end)
        if size <= 0 or end < l4 + (20 if protocol == _TCP else 8) or next_header not in (protocol, None):
            return None
        return cls(version, protocol, l4, end, size, -(-(length - end) // size), addresses)


# To the TUN.


def merge(burst: Burst, kinds: frozenset[int] = MERGEABLE) -> list[IoVector]:
    """The TUN writes that deliver a burst, each as the parts of one scattered write, virtio_net_hdr first.

    `[PLAIN, packet]` is one packet, left as it is for the kernel to judge; `[header, headers, payloads, last payload]`
    is a super-packet. `kinds` are the GSO types that may be made. Packets keep their order; only neighbours are merged.
    """
    lengths = burst.lengths
    if len(lengths) == 1 or not kinds:
        return [[PLAIN, packet] for packet in burst.packets()]
    cuts = burst.cuts or Cuts(burst.view)
    writes: list[IoVector] = []
    i, count = 0, len(lengths)
    while i < count:
        run, alike = 0, 1
        lead = _Lead.of(burst, cuts, i) if i + 1 < count and lengths[i + 1] else None
        if lead is not None and lead.kind in kinds:
            run, alike = lead.run(burst, i)
            if run:
                writes.append(lead.super_packet(burst, i, run))
        # What follows a wrong checksum is left as it is too: looking again after each would take quadratic time.
        writes += [[PLAIN, burst.packet(j)] for j in range(i + run, i + alike) if lengths[j]]
        i += alike
    return writes


class _Lead(NamedTuple):
    """The first packet of a possible run: `kind` of super-packet, offsets of transport header and payload."""

    cuts: Cuts
    kind: int
    version: int
    protocol: int
    l4: int
    end: int
    size: int

    @classmethod
    def of(cls, burst: Burst, cuts: Cuts, i: int) -> Self | None:
        """Judge packet i; None if no run can begin with it. A glance at the next packet spares most the closer look."""
        view, stride, length, following = burst.view, burst.stride, burst.lengths[i], burst.lengths[i + 1]
        at = i * stride + TRANSPORT_HEADER_SIZE
        if length < 29 or following > length:
            return None
        if view[at] == 0x45:
            version, protocol, l4, addresses = 4, view[at + 9], 20, 12
            if view[at + 6] & ~_DONT_FRAGMENT or view[at + 7]:
                return None
        elif view[at] >> 4 == 6 and length > 48:
            version, protocol, l4, addresses = 6, view[at + 6], 40, 8
        else:
            return None
        if protocol == _TCP:
            if length <= l4 + 20 or view[at + l4 + 13] != _ACK or view[at + l4 + 12] & 0x0F:
                return None
            kind, end = GSO_TCPV4 if version == 4 else GSO_TCPV6, l4 + (view[at + l4 + 12] >> 2)
        elif protocol == _UDP:
            kind, end = GSO_UDP_L4, l4 + 8
            if not view[at + l4 + 6] | view[at + l4 + 7]:  # no checksum, so nothing to make one from
                return None
        else:
            return None
        size = length - end
        if end < l4 + (20 if protocol == _TCP else 8) or size <= 0 or following <= end:
            return None
        then = at + stride
        if view[at + addresses : at + l4 + 4] != view[then + addresses : then + l4 + 4]:
            return None
        if protocol == _TCP:
            sequence, *others = _tcp_fields(view, at + l4 + 4)
            if _tcp_fields(view, then + l4 + 4) != ((sequence + size) & 0xFFFFFFFF, *others):
                return None
        return cls(cuts, kind, version, protocol, l4, end, size)

    def run(self, burst: Burst, i: int) -> tuple[int, int]:
        """How many packets from i on may be merged, 0 for none, and how many (1 or more) look as if they might.

        They look like a run if a split of one super-packet could have made them; their checksums decide.
        """
        length, end = burst.lengths[i], self.end
        most = (MAX_PACKET_SIZE - end) // self.size
        if self.protocol == _UDP:
            most = min(most, _MAX_UDP_SEGMENTS)
        lengths = burst.lengths[i : i + most]
        equal = leading(lengths)
        tail = lengths[equal] if equal < len(lengths) and end < lengths[equal] < length else 0
        at = i * burst.stride + TRANSPORT_HEADER_SIZE
        if tail and not self._states(burst.view, at + equal * burst.stride, tail):
            tail = 0
        if equal + (tail > 0) < 2 or not self._states(burst.view, at, length):
            return 0, 1
        count = self._alike(burst, at, equal, tail)
        if count < 2:
            return 0, 1
        verified = self._verified(burst, at, min(count, equal), tail if count > equal else 0)
        return verified if verified > 1 else 0, count

    def _states(self, view: memoryview, at: int, length: int) -> bool:
        """Whether the length fields of the packet at `at` say that it has `length` bytes."""
        stated = _u16.unpack_from(view, at + 2)[0] if self.version == 4 else _u16.unpack_from(view, at + 4)[0] + 40
        return stated == length and (
            self.protocol == _TCP or _u16.unpack_from(view, at + self.l4 + 4)[0] == length - self.l4
        )

    def _alike(self, burst: Burst, at: int, equal: int, tail: int) -> int:
        """How many packets lead with headers as a split would have made them from the first's; payloads' sums apart.

        There are `equal` packets of one length and, if `tail` is not 0, a shorter one.
        """
        l4, check, count = self.l4, self.l4 + _CHECK_AT[self.protocol], equal + (tail > 0)
        layout = self.cuts.recall(Layout, at, burst.stride, count, l4, check, self.end, self.size)
        fixed = _fixed(self.version, self.protocol, l4, self.end)
        differs = layout.headers ^ layout.headers[0]
        differs &= fixed.all
        differs[-1] &= fixed.of_tail if tail else fixed.of_last
        alike = _clear(differs)
        if self.protocol == _TCP:
            if alike < count and not (differs[alike] & fixed.of_last).any():  # PSH is the last of its run
                alike += 1
            sequence = _u32.unpack_from(burst.view, at + l4 + 4)[0]
            alike = min(alike, _clear(layout.sequences - layout.offsets - sequence))
        else:
            alike = min(alike, _clear(layout.checks == 0))
        if self.version == 4:
            if not burst.view[at + 6]:  # without DF the id says something (RFC 6864), and a split would count it up
                identification = _u16.unpack_from(burst.view, at + 4)[0]
                alike = min(alike, _clear((layout.ids - layout.steps - identification) & 0xFFFF))
            headers = self.cuts.recall(Rows, at, burst.stride, count, 20)
            alike = min(alike, _clear(headers.beyond(0)))
        return alike

    def _verified(self, burst: Burst, at: int, count: int, tail: int) -> int:
        """How many of `count` packets of equal length, and then one of `tail` bytes, lead with good checksums."""
        l4, stride = self.l4, burst.stride
        first = 12 if self.version == 4 else 8  # the addresses end where the transport header begins
        length = self.end + self.size
        rows = self.cuts.recall(Rows, at + first, stride, count, length - first)
        good = _clear(rows.beyond(-(self.protocol + length - l4)))
        if tail and good == count:
            start = at + count * stride
            total = ones_sum(burst.view[start + first : start + tail]) + self.protocol + tail - l4
            good += total % MODULUS == 0
        return good

    def super_packet(self, burst: Burst, i: int, count: int) -> IoVector:
        view, stride, l4, end = burst.view, burst.stride, self.l4, self.end
        at = i * stride + TRANSPORT_HEADER_SIZE
        last = at + (count - 1) * stride
        length = end + (count - 1) * self.size + burst.lengths[i + count - 1] - end
        headers = bytearray(view[at : at + end])
        _store_lengths(headers, 0, self, length)
        if self.version == 4:
            _u16.pack_into(headers, 10, 0)
            _u16.pack_into(headers, 10, complement(ones_sum(headers[:20])))
            pseudo = pseudo_header_sum(headers[12:20], self.protocol, length - l4)
        else:
            pseudo = pseudo_header_sum(headers[8:40], self.protocol, length - l4)
        if self.protocol == _TCP:
            headers[l4 + 13] = view[last + l4 + 13]
        check = _CHECK_AT[self.protocol]
        _u16.pack_into(headers, l4 + check, pseudo)
        payloads: Column = np.ndarray((count - 1, self.size), U8, view, at + end, (stride, 1))
        return [
            VnetHeader(NEEDS_CSUM, self.kind, end, self.size, l4, check).pack(),
            headers,
            payloads.tobytes(),
            view[last + end : last + burst.lengths[i + count - 1]],
        ]


class _Fixed(NamedTuple):
    """Masks of a header's bytes: the bits that all of a run share, that its last does, and that a shorter one does."""

    all: Column
    of_last: Column
    of_tail: Column


@lru_cache(maxsize=64)
def _fixed(version: int, protocol: int, l4: int, end: int) -> _Fixed:
    bits = bytearray(b"\xff" * end)
    ip_length = slice(2, 4) if version == 4 else slice(4, 6)
    if version == 4:
        bits[4:6] = bits[10:12] = bytes(2)  # id, checksum
    if protocol == _TCP:
        bits[l4 + 4 : l4 + 8] = bytes(4)  # sequence
        bits[l4 + 16 : l4 + 18] = bytes(2)  # checksum
    else:
        bits[l4 + 6 : l4 + 8] = bytes(2)  # checksum
    of_last = bits.copy()
    if protocol == _TCP:
        of_last[l4 + 13] &= ~_PSH
    of_tail = of_last.copy()
    of_tail[ip_length] = bytes(2)
    if protocol == _UDP:
        of_tail[l4 + 4 : l4 + 6] = bytes(2)
    return _Fixed(*(np.frombuffer(mask, U8) for mask in (bits, of_last, of_tail)))


def packets_in(write: IoVector) -> int:
    """How many packets of its burst a write of `merge` delivers."""
    header = VnetHeader.unpack(write[0])
    return 1 if header.gso_type == GSO_NONE else -(-sum(map(len, write[2:])) // header.gso_size)


def _clear(rows: Column) -> int:
    """How many elements, or rows, come before the first that is not zero."""
    if not np.count_nonzero(rows):
        return len(rows)
    return int(rows.reshape(len(rows), -1).any(axis=1).argmax())
