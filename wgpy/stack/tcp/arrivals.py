"""What came together, connection by connection.

Bursts are added until all that the socket had is there: each connection is then handled once, and acknowledges once.
With many connections, whose packets come mixed, that is most of the cost: a connection costs as much as ten packets.

Of packets of one length, `stretches` looks at all at once. For a few packets of different connections, as requests and
answers come, that would cost more than it saves: `_plain` looks at each. Whatever is not plain TCP is left to
`ip.parse` and `lone`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from functools import lru_cache
from struct import Struct
from typing import Final

import numpy as np

from wgpy.burst import Burst, ViewCache
from wgpy.constants import TRANSPORT_HEADER_SIZE
from wgpy.device.ip import CE
from wgpy.stack.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, TCP, Drop, Packet
from wgpy.stack.tcp.header import ACK, FIN, HEADER, HEADER_SIZE, MASK, PSH, Segment
from wgpy.stack.tcp.stretches import ADDRESSES, LONGEST_PLAIN_ACK, Mixed, Packets, Shape, starts, stretches
from wgpy.tun.checksum import MODULUS, Rows, ones_sum, pseudo_header_sum

_FRAGMENTED: Final = 0x3FFF  # IPv4: an offset, or more fragments
_V4: Final = 0x45  # the first byte of an IPv4 packet without options
_V4_KEY: Final = 12  # bytes of a connection's key over IPv4
_MIXED: Final = 4  # packets that continue one another, on average, below which sorting them by connection pays
_LONG: Final = 1 << 15  # bytes of a run, behind which joining more to them costs more than another look
_MANY: Final = 8000  # bytes of packets of one length from which numpy is faster, whatever connections they belong to


class _Run:
    """Segments of one connection that continue one another."""

    __slots__ = (
        "acknowledgement", "flags", "following", "marked", "number", "offset", "options", "packets", "pieces", "window",
    )  # fmt: skip

    def __init__(self, number: int, acknowledgement: int, offset: int, flags: int, window: int, marked: bool) -> None:
        self.number = number
        self.acknowledgement = acknowledgement
        self.offset = offset  # of the payload: the header's length, as the header tells it
        self.flags = flags
        self.window = window
        self.marked = marked
        self.following = number
        self.options = b""
        self.packets = 0
        self.pieces: list[bytes] = []

    def takes(self, number: int, acknowledgement: int, offset: int, flags: int, size: int, marked: bool) -> bool:
        """Whether a segment with `size` bytes of payload continues it, so that one look at both is enough."""
        return (
            number == self.following
            and offset == self.offset
            and self.flags & ~PSH == ACK
            and flags & ~(PSH | FIN) == ACK
            and marked == self.marked
            and (number - self.number) & MASK < _LONG
            and (size > 0 or (offset >> 2 <= LONGEST_PLAIN_ACK and acknowledgement != self.acknowledgement))
        )

    @classmethod
    def of(cls, segment: Segment) -> _Run:
        """A run that begins with a segment."""
        number, acknowledgement, flags, window, options, payload, packets, marked = segment
        run = cls(number, acknowledgement, (HEADER_SIZE + len(options)) << 2, flags, window, marked)
        run.following, run.options, run.packets = (number + len(payload)) & MASK, options, packets
        if payload:
            run.pieces.append(payload)
        return run

    def segment(self) -> Segment:
        payload = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        return Segment(
            self.number, self.acknowledgement, self.flags, self.window, self.options, payload, self.packets, self.marked
        )


class Arrivals:
    """Segments by connection, as they came, until they are taken."""

    def __init__(self) -> None:
        self._flows: dict[bytes, list[_Run | Segment]] = {}  # a lone segment is no run, which would cost as much again
        self._mixed = Mixed()

    def take(self) -> Iterator[tuple[bytes, Segment]]:
        """The segments of one connection after the other, each with its connection's key, and forget them."""
        if self._mixed.shape is not None:
            self._place_mixed()
        flows, self._flows = self._flows, {}
        for key, runs in flows.items():
            for run in runs:
                yield key, run if isinstance(run, Segment) else run.segment()

    def add(self, key: bytes, segment: Segment) -> None:
        """Add what came in one packet."""
        runs = self._flows.get(key)
        if runs is None:
            self._flows[key] = [segment]
            return
        number, acknowledgement, flags, window, options, payload, packets, marked = segment
        run = _last(runs)
        if not run.takes(number, acknowledgement, (HEADER_SIZE + len(options)) << 2, flags, len(payload), marked):
            runs.append(segment)
            return
        run.flags |= flags
        run.acknowledgement, run.window, run.options = acknowledgement, window, options
        run.following = (number + len(payload)) & MASK
        run.packets += packets
        if payload:
            run.pieces.append(payload)

    def gather(self, burst: Burst, addresses: Container[bytes]) -> list[int]:
        """Sort the packets of a burst that go to `addresses`; returns the numbers of those to be looked at alone."""
        lengths = burst.lengths
        count, length = len(lengths), lengths[0]
        if count == 1:
            return [] if self._add_plain(burst, 0, addresses) else [0]
        if lengths.count(length) < count:
            ((length, _),) = Counter(lengths).most_common(1)
            if (count - 1) * burst.stride + TRANSPORT_HEADER_SIZE + length > len(burst.view):
                count -= 1  # the last slot is a short one
        others: list[int] = []
        sample = burst.packet(lengths.index(length))
        if count < 2 or not _are_many(burst, count, sample) or not self._sort(burst, count, sample, addresses, others):
            count = 0
        others += [i for i in range(count, len(lengths)) if not self._add_plain(burst, i, addresses)]
        return others

    def _add_plain(self, burst: Burst, i: int, addresses: Container[bytes]) -> bool:
        """Add one packet, if it is plain. False if it is to be looked at alone; an empty one is not."""
        found = _plain(bytes(burst.packet(i)), addresses)
        if found is None:
            return not burst.lengths[i]
        if self._mixed.shape is not None:
            self._place_mixed()
        self.add(*found)
        return True

    def _sort(
        self, burst: Burst, count: int, sample: memoryview, addresses: Container[bytes], others: list[int]
    ) -> bool:
        """Add the first `count` packets, as many at once as continue one another. False if the `sample` is not plain.

        Those that are unlike the sample are looked at one by one.
        """
        header = bytes(sample)
        found = _plain(header, addresses)
        if found is None or found[1].flags & ~PSH != ACK:
            return False
        key, segment = found
        l4 = IPV4_HEADER_SIZE if len(key) == _V4_KEY else IPV6_HEADER_SIZE
        length, size, at = len(header), len(segment.payload), TRANSPORT_HEADER_SIZE
        shape = Shape(l4, length - size, size, segment.has_congestion_mark)
        cache = burst.cache or ViewCache(burst.view)
        packets = cache.recall(Packets, at, burst.stride, count, length - size, size)
        odd = packets.unlike(header, l4)
        start = ADDRESSES[l4]
        rows = cache.recall(Rows, at + start, burst.stride, count, length - start)
        odd |= rows.differences(-(TCP + length - l4)) != 0
        if l4 == IPV4_HEADER_SIZE:
            odd |= cache.recall(Rows, at, burst.stride, count, l4).differences(0) != 0
        if burst.lengths.count(length) < len(burst.lengths):
            odd |= np.array(burst.lengths[:count]) != length
        strange = odd.tolist() if odd.any() else None
        if strange is None and self._mixed.add(packets, shape):
            return True
        self._place_mixed()
        begins = starts(packets.headers, shape, odd)
        if strange is None and len(begins) * _MIXED > count:
            self._mixed.begin(packets, shape)
            return True
        for i, key, segment in stretches(packets.headers, packets.payloads, begins, shape):
            if strange is None or not strange[i]:
                self.add(key, segment)
            elif not self._add_plain(burst, i, addresses):
                others.append(i)
        return True

    def _place_mixed(self) -> None:
        """Add what waits to be sorted by connection, before what has come after it."""
        for _, key, segment in self._mixed.take():
            self.add(key, segment)


def _last(runs: list[_Run | Segment]) -> _Run:
    run = runs[-1]
    if isinstance(run, Segment):
        run = runs[-1] = _Run.of(run)
    return run


@lru_cache(maxsize=2)
def _fields(l4: int) -> Struct:
    """The fields of a packet that tell what it is."""
    return Struct(">BBH2xHxB2x12sIIBBH" if l4 == IPV4_HEADER_SIZE else ">BB2xH0sBx36sIIBBH")


def _are_many(burst: Burst, count: int, sample: memoryview) -> bool:
    """Whether numpy is cheaper for `count` packets such as this: long ones, or neighbours of one connection."""
    if count * len(sample) >= _MANY:
        return True
    view, stride = burst.view, burst.stride
    l4 = IPV4_HEADER_SIZE if sample and sample[0] >> 4 == 4 else IPV6_HEADER_SIZE
    start, size = TRANSPORT_HEADER_SIZE + ADDRESSES[l4], l4 + 4 - ADDRESSES[l4]
    last = start + (count - 1) * stride
    return (
        view[start : start + size] == view[start + stride : start + stride + size]
        or view[last : last + size] == view[last - stride : last - stride + size]
    )


def _plain(packet: bytes, addresses: Container[bytes]) -> tuple[bytes, Segment] | None:
    """The segment in a packet, and the key of its connection; None if it is not plain, intact TCP to `addresses`."""
    length = len(packet)
    if length < IPV4_HEADER_SIZE + HEADER_SIZE:
        return None
    first = packet[0]
    if first == _V4:
        l4, stated_length = IPV4_HEADER_SIZE, length
        if int.from_bytes(packet[:IPV4_HEADER_SIZE]) % MODULUS:
            return None
    elif first >> 4 == 6 and length >= IPV6_HEADER_SIZE + HEADER_SIZE:
        l4, stated_length = IPV6_HEADER_SIZE, length - IPV6_HEADER_SIZE
    else:
        return None
    _, second, stated, fragment, protocol, key, number, acknowledgement, offset, flags, window = _fields(
        l4
    ).unpack_from(packet)
    at = ADDRESSES[l4]
    end = l4 + (offset >> 4) * 4
    if (
        protocol != TCP
        or stated != stated_length
        or (l4 == IPV4_HEADER_SIZE and fragment & _FRAGMENTED)
        or not l4 + HEADER_SIZE <= end <= length
        or packet[(at + l4) // 2 : l4] not in addresses
        or (ones_sum(packet[at:]) + TCP + length - l4) % MODULUS
    ):
        return None
    ecn = second & 3 if l4 == IPV4_HEADER_SIZE else second >> 4 & 3
    return key, Segment(
        number, acknowledgement, flags, window, packet[l4 + HEADER_SIZE : end], packet[end:], 1, ecn == CE
    )


def lone(packet: Packet) -> tuple[bytes, Segment] | Drop:
    """The segment in one packet, and the key of its connection."""
    payload = packet.payload
    size = len(payload)
    if size < HEADER_SIZE:
        return Drop.MALFORMED
    _, _, number, acknowledgement, offset, flags, window, _, _ = HEADER.unpack_from(payload)
    end = (offset >> 4) * 4
    if not HEADER_SIZE <= end <= size:
        return Drop.MALFORMED
    if (ones_sum(payload) + pseudo_header_sum(packet.source + packet.destination, TCP, size)) % MODULUS:
        return Drop.CHECKSUM
    key = packet.source + packet.destination + bytes(payload[:4])
    options = bytes(payload[HEADER_SIZE:end])
    data = bytes(payload[end:])
    return key, Segment(number, acknowledgement, flags, window, options, data, 1, packet.ecn == CE)
