"""Merging a burst of packets into few TUN writes.

`merge` groups the packets of each flow into runs that could be the segments of one super-packet, as the kernel's GRO
does (net/ipv4/tcp_offload.c, tcp_gro_receive). It verifies each checksum, because a packet that was corrupted before
the tunnel must not get a valid checksum after it. Each run becomes one scattered write.

A call of numpy's costs as much as looking at several packets one by one. So headers and checksums are read by arrays
over the whole burst, once, and what remains is to compare bytes and numbers. A peer chooses the packets: whatever they
contain, each is looked at closely at most once, and arrays are made for at most MAX_SHAPES kinds of headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

import numpy as np

from wgpy.burst import Burst, ViewCache, run_length
from wgpy.constants import TRANSPORT_HEADER_SIZE
from wgpy.tun.checksum import MODULUS, Rows, ones_sum
from wgpy.tun.layout import ACK, CHECK_AT, PSH, TCP, UDP, Column, Layout, store_lengths, u16
from wgpy.tun.virtio import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, MERGEABLE, NEEDS_CSUM, PLAIN, vnet_header

MAX_PACKET_SIZE: Final = 65535
MAX_SHAPES: Final = 4
_DONT_FRAGMENT: Final = 0x40
_MAX_UDP_SEGMENTS: Final = 64  # UDP_MAX_SEGMENTS of the kernels that came with USO
_MAX_TCP_SEGMENTS: Final = 1024 - 2  # a scattered write has IOV_MAX parts, and two of them are headers

IoVector = list[bytes | bytearray | memoryview]


class Write(NamedTuple):
    """One write to the TUN."""

    parts: IoVector
    """The parts of a scattered write, virtio_net_hdr first.

    `[PLAIN, packet]` is one packet, unchanged, for the kernel to judge; `[header, headers, payload, payload, ...]` is a
    super-packet."""
    slots: Sequence[int]
    """The slots of the burst whose packets it delivers, in order."""


def merge(burst: Burst, kinds: frozenset[int] = MERGEABLE) -> list[Write]:
    """The TUN writes that deliver a burst. `kinds` are the GSO types that may be made.

    Packets of one flow, which is their addresses and ports, keep their order. A packet of which that is not known, such
    as a fragment, keeps its place among all others.
    """
    lengths = burst.lengths
    if len(lengths) == 1 or not kinds:
        return [_plain(burst, i) for i, length in enumerate(lengths) if length]
    return _Merger(burst, kinds).writes()


def _plain(burst: Burst, i: int) -> Write:
    return Write([PLAIN, burst.packet(i)], (i,))


class _Shape(NamedTuple):
    """The headers of packets that can be merged: the super-packet's GSO type, offsets of transport header, payload."""

    kind: int
    version: int
    protocol: int
    l4: int
    end: int


@lru_cache(maxsize=64)
def _shape(version: int, protocol: int, end: int) -> _Shape:
    kind = GSO_UDP_L4 if protocol == UDP else GSO_TCPV4 if version == 4 else GSO_TCPV6
    return _Shape(kind, version, protocol, 20 if version == 4 else 40, end)


class _Headers:
    """The headers of all packets of a burst, read as if all were of one shape."""

    __slots__ = ("_block", "_differ", "_end", "_payloads", "_rows", "places", "size")

    def __init__(self, burst: Burst, cache: ViewCache, shape: _Shape, longest: int) -> None:
        """`longest` is the length of the burst's longest packet in bytes."""
        l4, end, count = shape.l4, shape.end, len(burst.lengths)
        rows = count if burst.lengths[-1] > end else count - 1
        self._end, self._rows = end, rows
        self.size: int = longest - end
        check = l4 + CHECK_AT[shape.protocol]
        layout = cache.recall(Layout, TRANSPORT_HEADER_SIZE, burst.stride, rows, l4, check, end, self.size)
        self._payloads = cache.views(TRANSPORT_HEADER_SIZE + end, burst.stride, self.size, rows - 1)
        words = layout.headers & _key_mask(shape)
        if shape.protocol == UDP and np.count_nonzero(layout.checks) < rows:
            words[layout.checks == 0, 0] = 0  # there is no checksum, so the super-packet could have none
        self._block = words.tobytes()
        # Each packet's sequence number, less the most payload that the packets before it in the burst can have. It is
        # the same for neighbours in a run.
        self.places: list[int] = []
        if shape.protocol == TCP:
            places = layout.sequences - layout.offsets
            words[:, l4 // 4 + 1] = places
            self.places = places.tolist()
        differ = words[1:] != words[:-1]
        if shape.version == 4 and 0 in self._block[6::end]:
            ids = layout.ids - layout.steps & 0xFFFF
            differ[:, 0] |= ids[1:] != ids[:-1]
        self._differ = differ.tobytes()

    def key(self, i: int) -> bytes:
        """What the packets of a run share; of packet i."""
        return self._block[i * self._end : (i + 1) * self._end]

    def alike(self, i: int) -> int:
        """The slot after packet i and those that follow it in a run, as far as they are neighbours."""
        words = self._end // 4
        found = self._differ.find(1, i * words)
        return found // words + 1 if found >= 0 else self._rows

    def payloads(self, slots: list[int]) -> list[memoryview]:
        """The payloads of the longest packets in these slots."""
        if slots[-1] - slots[0] == len(slots) - 1:
            return self._payloads[slots[0] : slots[-1] + 1]
        return [self._payloads[i] for i in slots]


class _Run:
    """Packets of one flow, in order, that could be the segments of one super-packet, as their headers tell."""

    __slots__ = (
        "addresses",
        "first_id",
        "flow",
        "headers",
        "key",
        "length",
        "room",
        "sequence",
        "shape",
        "size",
        "slots",
    )

    def __init__(self, slot: int, length: int, flow: bytes, shape: _Shape) -> None:
        """A run that begins with a packet of `length` bytes. Most lone packets remain alone: `open` does the rest."""
        self.slots = [slot]
        self.length = length
        self.flow = flow
        self.shape = shape
        self.headers: _Headers | None = None

    def open(self, burst: Burst, headers: _Headers) -> None:
        """Be ready to take further packets."""
        slot, (_, version, protocol, _, end) = self.slots[0], self.shape
        self.headers = headers
        self.key = headers.key(slot)
        self.size = self.length - end
        most = _MAX_TCP_SEGMENTS if protocol == TCP else _MAX_UDP_SEGMENTS
        self.room = min((MAX_PACKET_SIZE - end) // self.size, most) - 1
        view, at = burst.view, slot * burst.stride + TRANSPORT_HEADER_SIZE
        self.addresses = ones_sum(view[at + 12 : at + 20] if version == 4 else view[at + 8 : at + 40])
        self.sequence = headers.places[slot] + slot * headers.size if protocol == TCP else 0
        self.first_id: int | None = None
        if version == 4 and not view[at + 6]:  # without DF the identification has a meaning (RFC 6864): it counts up
            self.first_id = u16.unpack_from(view, at + 4)[0]

    def awaits(self, burst: Burst, i: int) -> bool:
        """Whether packet i, which has the key of the run, comes next: by sequence number, identification and length."""
        steps, headers = len(self.slots), self.headers
        assert headers is not None
        if burst.lengths[i] > self.length:
            return False
        if headers.places and (headers.places[i] + i * headers.size - self.sequence - steps * self.size) & 0xFFFFFFFF:
            return False
        if self.first_id is None:
            return True
        identification = u16.unpack_from(burst.view, i * burst.stride + TRANSPORT_HEADER_SIZE + 4)[0]
        return not (identification - self.first_id - steps) & 0xFFFF


class _Merger:
    """Finds the runs of one burst."""

    def __init__(self, burst: Burst, kinds: frozenset[int]) -> None:
        self._burst = burst
        self._kinds = kinds
        self._cache = burst.cache or ViewCache(burst.view)
        self._longest = max(burst.lengths)
        self._headers: dict[_Shape, _Headers] = {}
        self._found: list[_Run | int] = []  # runs, and slots of packets that belong to none
        self._latest: dict[bytes, _Run] = {}  # each flow's run that may take further packets
        self._open: dict[bytes, _Run] = {}  # those of them that are ready to, by key
        self._sums: list[int] = []

    def writes(self) -> list[Write]:
        lengths = self._burst.lengths
        i, count = 0, len(lengths)
        while i < count:
            run = self._awaiting(i) if self._open else None
            if run is not None:
                i = self._add(run, i)
            elif lengths[i]:
                i = self._look(i)
            else:
                i += 1
        writes: list[Write] = []
        for found in self._found:
            if isinstance(found, int):
                writes.append(_plain(self._burst, found))
            elif len(found.slots) == 1:
                writes.append(_plain(self._burst, found.slots[0]))
            else:
                self._write(found, writes)
        return writes

    def _awaiting(self, i: int) -> _Run | None:
        """The run that packet i continues, if there is one, and neither ends it."""
        for headers in self._headers.values():
            run = self._open.get(headers.key(i))
            if run is not None and self._burst.lengths[i] == run.length and run.awaits(self._burst, i):
                return run
        return None

    def _add(self, run: _Run, i: int) -> int:
        """Add packet i to a run, and its neighbours as far as they continue or end it; returns the slot after them."""
        run.slots.append(i)
        run.room -= 1
        return self._extend(run, i + 1)

    def _extend(self, run: _Run, i: int) -> int:
        """Add packets from i on, of which the one before is the run's latest, as `_add` does."""
        lengths, after, headers = self._burst.lengths, i, run.headers
        assert headers is not None
        if run.length == self._longest:
            after = min(headers.alike(i - 1), i + run.room)
            if lengths[i:after].count(run.length) < after - i:  # lengths other than the headers' are not merged
                after = i - 1 + run_length(lengths[i - 1 : after])
            run.slots += range(i, after)
            run.room -= after - i
        else:
            while run.room and after < len(lengths) and self._is_next(run, after):
                run.slots.append(after)
                run.room -= 1
                after += 1
        if run.room and after < len(lengths):
            if not self._is_last(run, after):
                return after
            run.slots.append(after)
            after += 1
        self._close(run)
        return after

    def _close(self, run: _Run) -> None:
        """The run takes no further packets."""
        if self._latest.get(run.flow) is run:
            del self._latest[run.flow]
        if run.headers is not None:
            self._open.pop(run.key, None)

    def _look(self, i: int) -> int:
        """Look closely at packet i, which begins a run, ends one, or stands alone; returns the next slot to look at."""
        burst, at = self._burst, i * self._burst.stride + TRANSPORT_HEADER_SIZE
        flow, shape, is_pushed = _flow_and_shape(burst.view, at, burst.lengths[i])
        if not flow:  # nothing overtakes it
            self._latest.clear()
            self._open.clear()
        if shape is not None and shape.kind not in self._kinds:
            shape = None
        run = self._latest.get(flow)
        if run is not None:
            if run.shape is shape and run.slots[-1] < i - 1 and self._is_open(run):  # else `_extend` has tried it
                if self._is_next(run, i):
                    self._open[run.key] = run
                    return self._add(run, i)
                if self._is_last(run, i):
                    run.slots.append(i)
                    self._close(run)
                    return i + 1
            self._close(run)
        if shape is None or is_pushed:
            self._found.append(i)
            return i + 1
        self._latest[flow] = run = _Run(i, burst.lengths[i], flow, shape)
        self._found.append(run)
        then = at + burst.stride + shape.l4 + 4
        if burst.view[then - len(flow) : then] == flow and self._is_open(run):
            self._open[run.key] = run
            return self._extend(run, i + 1)
        return i + 1

    def _is_open(self, run: _Run) -> bool:
        """Whether a run can take one more packet, for which it is opened if it is not yet."""
        if run.headers is None:
            headers = self._headers.get(run.shape)
            if headers is None:
                if len(self._headers) == MAX_SHAPES:
                    return False
                headers = self._headers[run.shape] = _Headers(self._burst, self._cache, run.shape, self._longest)
            run.open(self._burst, headers)
        return run.room > 0

    def _is_next(self, run: _Run, i: int) -> bool:
        assert run.headers is not None
        return run.headers.key(i) == run.key and self._burst.lengths[i] == run.length and run.awaits(self._burst, i)

    def _is_last(self, run: _Run, i: int) -> bool:
        """Whether packet i is the last of a run: that one may be shorter than the others, and have PSH."""
        assert run.headers is not None
        (_, version, protocol, l4, end), burst, found = run.shape, self._burst, run.headers.key(i)
        ports, length = slice(l4, l4 + 4), burst.lengths[i]
        if found[ports] != run.key[ports] or not end < length <= run.length:  # mostly another flow's
            return False
        key = bytearray(run.key)
        store_lengths(key, 0, version, protocol, l4, length)
        if protocol == TCP:
            key[l4 + 13] |= found[l4 + 13] & PSH
        return key == found and run.awaits(burst, i)

    def _write(self, run: _Run, writes: list[Write]) -> None:
        """Write a super-packet of the packets before the first with a wrong checksum, and the others one by one."""
        good = self._verified(run)
        if good == len(run.slots):
            writes.append(self._super_packet(run, run.slots))
            return
        if good > 1:
            writes.append(self._super_packet(run, run.slots[:good]))
        else:
            good = 0
        writes += [_plain(self._burst, i) for i in run.slots[good:]]

    def _verified(self, run: _Run) -> int:
        """How many packets of a run come before one with a wrong checksum."""
        burst, slots, shape = self._burst, run.slots, run.shape
        good, count = 0, len(slots)
        if run.length == self._longest:
            if not self._sums:
                rows = len(burst.lengths) - (burst.lengths[-1] < run.length)
                shaped = self._cache.recall(Rows, TRANSPORT_HEADER_SIZE, burst.stride, rows, run.length)
                self._sums = shaped.differences(0).tolist()
            # The sum of a whole packet shows both checksums, the IPv4 header's and TCP's or UDP's.
            known = -run.addresses
            if shape.version == 6:
                head = slots[0] * burst.stride + TRANSPORT_HEADER_SIZE
                known = ones_sum(burst.view[head : head + 8])
            due = (known - shape.protocol - run.length + shape.l4) * 256 % MODULUS
            equal = count - (burst.lengths[slots[-1]] < run.length)
            first, after = slots[0], slots[equal - 1] + 1
            sums = self._sums[first:after] if after - first == equal else [self._sums[i] for i in slots[:equal]]
            good = equal if sums.count(due) == equal else next(i for i, found in enumerate(sums) if found != due)
            if good < equal:
                return good
        while good < count and self._is_intact(shape, slots[good]):
            good += 1
        return good

    def _is_intact(self, shape: _Shape, i: int) -> bool:
        at, length = i * self._burst.stride + TRANSPORT_HEADER_SIZE, self._burst.lengths[i]
        view, addresses = self._burst.view, 12 if shape.version == 4 else 8  # which the transport header follows
        if shape.version == 4 and ones_sum(view[at : at + 20]):
            return False
        return not (ones_sum(view[at + addresses : at + length]) + shape.protocol + length - shape.l4) % MODULUS

    def _super_packet(self, run: _Run, slots: list[int]) -> Write:
        burst, (kind, version, protocol, l4, end) = self._burst, run.shape
        view, stride, size = burst.view, burst.stride, run.size
        at, last = slots[0] * stride + TRANSPORT_HEADER_SIZE, slots[-1] * stride + TRANSPORT_HEADER_SIZE
        tail = burst.lengths[slots[-1]]
        length = (len(slots) - 1) * size + tail
        headers = bytearray(view[at : at + end])
        store_lengths(headers, 0, version, protocol, l4, length)
        if version == 4:  # the checksum is right, and of what it sums only the length changes
            u16.pack_into(headers, 10, (u16.unpack_from(headers, 10)[0] + run.length - length) % MODULUS)
        if protocol == TCP:
            headers[l4 + 13] = view[last + l4 + 13]
        check = CHECK_AT[protocol]
        u16.pack_into(headers, l4 + check, (run.addresses + protocol + length - l4) % MODULUS)
        assert run.headers is not None
        if size == run.headers.size:
            payloads = run.headers.payloads(slots[:-1])
        else:
            starts = [i * stride + TRANSPORT_HEADER_SIZE + end for i in slots[:-1]]
            payloads = [view[start : start + size] for start in starts]
        header = vnet_header.pack(NEEDS_CSUM, kind, end, size, l4, check)
        return Write([header, headers, *payloads, view[last + end : last + tail]], slots)


# The first byte, total or payload length, what tells of fragments, protocol, flow, TCP's header length and flags.
_ipv4_fields = Struct(">BxH2xHxB2x12s8xBB").unpack_from
_ipv6_fields = Struct(">B3xHBx36s8xBB").unpack_from


def _flow_and_shape(view: memoryview, at: int, length: int) -> tuple[bytes, _Shape | None, bool]:
    """The flow of the packet at `at`, empty if that is not known; its shape, None if it cannot be merged; its PSH."""
    if length >= 28 and view[at] == 0x45:
        _, stated, fragment, protocol, flow, header_length, flags = _ipv4_fields(view, at)
        if fragment & ~(_DONT_FRAGMENT << 8):
            return b"", None, False
        version, l4 = 4, 20
    elif length >= 48 and view[at] >> 4 == 6:
        _, stated, protocol, flow, header_length, flags = _ipv6_fields(view, at)
        version, l4 = 6, 40
        stated += 40
    else:
        return b"", None, False
    if protocol == TCP:
        end = l4 + (header_length >> 2)
        if end < l4 + 20 or header_length & 0x0F or flags & ~PSH != ACK or length <= end or stated != length:
            return flow, None, False
        return flow, _shape(version, protocol, end), flags & PSH > 0
    if protocol == UDP:
        if length <= l4 + 8 or stated != length or u16.unpack_from(view, at + l4 + 4)[0] != length - l4:
            return flow, None, False
        return flow, _shape(version, protocol, l4 + 8), False
    return b"", None, False


@lru_cache(maxsize=64)
def _key_mask(shape: _Shape) -> Column:
    """Masks the bits of the headers that the packets of a run share, in numbers of four bytes."""
    bits = bytearray(b"\xff" * shape.end)
    if shape.version == 4:
        bits[4:6] = bits[10:12] = bytes(2)  # id, checksum
    if shape.protocol == TCP:
        bits[shape.l4 + 4 : shape.l4 + 8] = bytes(4)  # sequence
    check = shape.l4 + CHECK_AT[shape.protocol]
    bits[check : check + 2] = bytes(2)
    return np.frombuffer(bits, np.uint32)
