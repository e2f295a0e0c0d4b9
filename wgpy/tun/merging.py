"""Merging a burst of packets into few TUN writes.

`merge` finds runs of packets that could be the segments of one super-packet. It verifies each checksum, because a
packet that was corrupted before the tunnel must not get a valid checksum after it. Each run becomes one scattered
write. Payloads are copied together, which takes a third of the time of slicing a view of each.

A peer chooses the packets, so the work is bounded by their number and size, whatever they contain. Arrays over many
packets are the fastest way to compare them, but must not be made over the same packets again and again: see `merge`.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple, Self

import numpy as np

from wgpy.burst import Burst, ViewCache, run_length
from wgpy.constants import TRANSPORT_HEADER_SIZE
from wgpy.tun.checksum import MODULUS, Rows, complement, ones_sum, pseudo_header_sum
from wgpy.tun.layout import ACK, CHECK_AT, PSH, TCP, U8, UDP, Column, Layout, store_lengths, u16, u32
from wgpy.tun.virtio import (
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    MERGEABLE,
    NEEDS_CSUM,
    PLAIN,
    VnetHeader,
    vnet_header,
)

MAX_PACKET_SIZE: Final = 65535
_DONT_FRAGMENT: Final = 0x40
_MAX_UDP_SEGMENTS: Final = 64  # UDP_MAX_SEGMENTS of the kernels that came with USO
_FEW: Final = 4  # packets up to which comparing them one by one is faster than arrays

_tcp_fields = Struct(">IIBxH").unpack_from  # sequence, acknowledgement, header length, window

IoVector = list[bytes | bytearray | memoryview]


def merge(burst: Burst, kinds: frozenset[int] = MERGEABLE) -> list[IoVector]:
    """The TUN writes that deliver a burst, each as the parts of one scattered write, virtio_net_hdr first.

    `[PLAIN, packet]` is one packet, unchanged, for the kernel to judge; `[header, headers, payloads, last payload]` is
    a super-packet. `kinds` are the GSO types that may be made. Packets keep their order; only neighbours are merged.
    """
    lengths = burst.lengths
    if len(lengths) == 1 or not kinds:
        return [[PLAIN, packet] for packet in burst.packets()]
    cache = burst.cache or ViewCache(burst.view)
    writes: list[IoVector] = []
    i, count = 0, len(lengths)
    # How many packets may still be compared by arrays without being merged. Without a limit, a peer could send packets
    # that seem to belong together and do not, and for each of them all that follow would be compared.
    credit = count + 2 * _FEW
    while i < count:
        run, alike = 0, 1
        lead = _Lead.of(burst, cache, i) if i + 1 < count and lengths[i + 1] else None
        if lead is not None and lead.kind in kinds:
            most = min(count - i, lead.limit())
            window = min(most, credit if credit > 2 * _FEW else _FEW)
            run, alike = lead.run(burst, i, window)
            while alike == window < most:
                window = min(most, 4 * window)
                run, alike = lead.run(burst, i, window)
            if window > _FEW:
                credit += 2 * alike - window
            if run:
                writes.append(lead.super_packet(burst, i, run))
        # The rest of a run after a wrong checksum is not merged: looking again after each would take quadratic time.
        writes += [[PLAIN, burst.packet(j)] for j in range(i + run, i + alike) if lengths[j]]
        i += alike
    return writes


class _Lead(NamedTuple):
    """The first packet of a possible run: the super-packet's GSO type, the offsets of transport header and payload."""

    cache: ViewCache
    kind: int
    version: int
    protocol: int
    l4: int
    end: int
    size: int

    @classmethod
    def of(cls, burst: Burst, cache: ViewCache, i: int) -> Self | None:
        """Look at packet i; None if no run can begin with it, which a quick look at the next packet shows mostly."""
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
        if protocol == TCP:
            if length <= l4 + 20 or view[at + l4 + 13] != ACK or view[at + l4 + 12] & 0x0F:
                return None
            kind, end = GSO_TCPV4 if version == 4 else GSO_TCPV6, l4 + (view[at + l4 + 12] >> 2)
        elif protocol == UDP:
            kind, end = GSO_UDP_L4, l4 + 8
            if not view[at + l4 + 6] | view[at + l4 + 7]:  # there is no checksum, so the super-packet could have none
                return None
        else:
            return None
        size = length - end
        if end < l4 + (20 if protocol == TCP else 8) or size <= 0 or following <= end:
            return None
        then = at + stride
        if view[at + addresses : at + l4 + 4] != view[then + addresses : then + l4 + 4]:
            return None
        if protocol == TCP:
            sequence, *others = _tcp_fields(view, at + l4 + 4)
            if _tcp_fields(view, then + l4 + 4) != ((sequence + size) & 0xFFFFFFFF, *others):
                return None
        return cls(cache, kind, version, protocol, l4, end, size)

    def limit(self) -> int:
        """How many packets one super-packet may hold."""
        most = (MAX_PACKET_SIZE - self.end) // self.size
        return _MAX_UDP_SEGMENTS if self.protocol == UDP and most > _MAX_UDP_SEGMENTS else most

    def run(self, burst: Burst, i: int, window: int) -> tuple[int, int]:
        """How many packets from i on can be merged, 0 for none; and how many (1 or more) have headers of a run.

        They do if they could be the segments of one super-packet; then their checksums decide. At most `window` packets
        are looked at.
        """
        if window <= _FEW:
            return self._short_run(burst, i, window)
        length, end = burst.lengths[i], self.end
        lengths = burst.lengths[i : i + window]
        equal = run_length(lengths)
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

    def _short_run(self, burst: Burst, i: int, window: int) -> tuple[int, int]:
        """The same, packet by packet, as far as the first that does not belong to the run."""
        view, stride, lengths, l4 = burst.view, burst.stride, burst.lengths, self.l4
        length, at = lengths[i], i * stride + TRANSPORT_HEADER_SIZE
        alike, then = 1, at + stride
        while alike < window and self._follows(view, at, then, alike, length, lengths[i + alike]):
            alike += 1
            if lengths[i + alike - 1] < length or (self.protocol == TCP and view[then + l4 + 13] & PSH):
                break
            then += stride
        if alike < 2 or not self._states(view, at, length) or (self.version == 4 and ones_sum(view[at : at + 20])):
            return 0, 1
        good, first = 0, 12 if self.version == 4 else 8  # the addresses end where the transport header begins
        while good < alike:
            start, size = at + good * stride, lengths[i + good]
            if (ones_sum(view[start + first : start + size]) + self.protocol + size - l4) % MODULUS:
                break
            good += 1
        return good if good > 1 else 0, alike

    def _follows(self, view: memoryview, at: int, then: int, steps: int, length: int, following: int) -> bool:
        """Whether the packet at `then` can be the segment `steps` after the one at `at`, if its payload is intact.

        `length` and `following` are the lengths in bytes of the first and of the following packet, which may have PSH.
        """
        l4, end = self.l4, self.end
        if not end < following <= length:
            return False
        if self.protocol == TCP:
            sequence = u32.unpack_from(view, then + l4 + 4)[0] - u32.unpack_from(view, at + l4 + 4)[0]
            if (sequence - steps * self.size) & 0xFFFFFFFF:
                return False
        elif not view[then + l4 + 6] | view[then + l4 + 7]:
            return False
        bits = _bits(self.version, self.protocol, l4, end)
        differs = int.from_bytes(view[at : at + end], "big") ^ int.from_bytes(view[then : then + end], "big")
        if differs & (bits.of_last if following == length else bits.of_tail):
            return False
        if self.version == 4:
            identification = u16.unpack_from(view, then + 4)[0] - u16.unpack_from(view, at + 4)[0]
            if (not view[at + 6] and (identification - steps) & 0xFFFF) or ones_sum(view[then : then + 20]):
                return False
        return following == length or self._states(view, then, following)

    def _states(self, view: memoryview, at: int, length: int) -> bool:
        """Whether the length fields of the packet at `at` say `length` bytes."""
        stated = u16.unpack_from(view, at + 2)[0] if self.version == 4 else u16.unpack_from(view, at + 4)[0] + 40
        return stated == length and (
            self.protocol == TCP or u16.unpack_from(view, at + self.l4 + 4)[0] == length - self.l4
        )

    def _alike(self, burst: Burst, at: int, equal: int, tail: int) -> int:
        """How many packets, from the first on, have the headers of one super-packet's segments.

        There are `equal` packets of one length and, if `tail` is not 0, a shorter one of `tail` bytes.
        """
        l4, check, count = self.l4, self.l4 + CHECK_AT[self.protocol], equal + (tail > 0)
        layout = self.cache.recall(Layout, at, burst.stride, count, l4, check, self.end, self.size)
        fixed = _fixed(self.version, self.protocol, l4, self.end)
        differs = layout.headers ^ layout.headers[0]
        differs &= fixed.all
        differs[-1] &= fixed.of_tail if tail else fixed.of_last
        alike = _leading_zeros(differs)
        if self.protocol == TCP:
            if alike < count and not (differs[alike] & fixed.of_last).any():  # a packet with PSH is the last of its run
                alike += 1
            sequence = u32.unpack_from(burst.view, at + l4 + 4)[0]
            alike = min(alike, _leading_zeros(layout.sequences - layout.offsets - sequence))
        else:
            alike = min(alike, _leading_zeros(layout.checks == 0))
        if self.version == 4:
            if not burst.view[at + 6]:  # without DF the id has a meaning (RFC 6864), and segments count it up
                identification = u16.unpack_from(burst.view, at + 4)[0]
                alike = min(alike, _leading_zeros((layout.ids - layout.steps - identification) & 0xFFFF))
            headers = self.cache.recall(Rows, at, burst.stride, count, 20)
            alike = min(alike, _leading_zeros(headers.differences(0)))
        return alike

    def _verified(self, burst: Burst, at: int, count: int, tail: int) -> int:
        """How many packets, of `count` with equal length and one of `tail` bytes, come before a bad checksum."""
        l4, stride = self.l4, burst.stride
        first = 12 if self.version == 4 else 8  # the addresses end where the transport header begins
        length = self.end + self.size
        rows = self.cache.recall(Rows, at + first, stride, count, length - first)
        good = _leading_zeros(rows.differences(-(self.protocol + length - l4)))
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
        store_lengths(headers, 0, self.version, self.protocol, l4, length)
        if self.version == 4:
            u16.pack_into(headers, 10, 0)
            u16.pack_into(headers, 10, complement(ones_sum(headers[:20])))
            pseudo = pseudo_header_sum(headers[12:20], self.protocol, length - l4)
        else:
            pseudo = pseudo_header_sum(headers[8:40], self.protocol, length - l4)
        if self.protocol == TCP:
            headers[l4 + 13] = view[last + l4 + 13]
        check = CHECK_AT[self.protocol]
        u16.pack_into(headers, l4 + check, pseudo)
        payloads: Column = np.ndarray((count - 1, self.size), U8, view, at + end, (stride, 1))
        return [
            vnet_header.pack(NEEDS_CSUM, self.kind, end, self.size, l4, check),
            headers,
            payloads.tobytes(),
            view[last + end : last + burst.lengths[i + count - 1]],
        ]


class _Fixed(NamedTuple):
    """Masks of the header bits that the packets of a run share: all, the last one, and a shorter last one."""

    all: Column
    of_last: Column
    of_tail: Column


class _Bits(NamedTuple):
    """The masks of `_Fixed` for the last packet of a run, as numbers."""

    of_last: int
    of_tail: int


@lru_cache(maxsize=64)
def _bits(version: int, protocol: int, l4: int, end: int) -> _Bits:
    fixed = _fixed(version, protocol, l4, end)
    return _Bits(*(int.from_bytes(mask.tobytes(), "big") for mask in (fixed.of_last, fixed.of_tail)))


@lru_cache(maxsize=64)
def _fixed(version: int, protocol: int, l4: int, end: int) -> _Fixed:
    bits = bytearray(b"\xff" * end)
    ip_length = slice(2, 4) if version == 4 else slice(4, 6)
    if version == 4:
        bits[4:6] = bits[10:12] = bytes(2)  # id, checksum
    if protocol == TCP:
        bits[l4 + 4 : l4 + 8] = bytes(4)  # sequence
        bits[l4 + 16 : l4 + 18] = bytes(2)  # checksum
    else:
        bits[l4 + 6 : l4 + 8] = bytes(2)  # checksum
    of_last = bits.copy()
    if protocol == TCP:
        of_last[l4 + 13] &= ~PSH
    of_tail = of_last.copy()
    of_tail[ip_length] = bytes(2)
    if protocol == UDP:
        of_tail[l4 + 4 : l4 + 6] = bytes(2)
    return _Fixed(*(np.frombuffer(mask, U8) for mask in (bits, of_last, of_tail)))


def packets_in(write: IoVector) -> int:
    """How many packets a write of `merge` delivers."""
    header = VnetHeader.unpack(write[0])
    return 1 if header.gso_type == GSO_NONE else -(-sum(map(len, write[2:])) // header.gso_size)


def _leading_zeros(rows: Column) -> int:
    """How many elements or rows come before the first that is not zero."""
    if not np.count_nonzero(rows):
        return len(rows)
    return int(rows.reshape(len(rows), -1).any(axis=1).argmax())
