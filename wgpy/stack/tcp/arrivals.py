"""What came together, connection by connection.

Bursts are added until all that the socket had is there: each connection is then handled once, and acknowledges once.
With many connections, whose packets come mixed, that is most of the cost: a connection costs as much as ten packets.

Of packets of one length, numpy sums all, copies all payloads at once, and finds where a packet does not continue the
one before it, so that Python looks once at each of these stretches. For a few packets of different connections, as
requests and answers come, that would cost more than it saves: `_plain` looks at each. Whatever is not plain TCP is left
to `ip.parse` and `lone`.
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
from wgpy.stack.tcp.header import ACK, FIN, HEADER, HEADER_SIZE, MASK, PSH, TIMESTAMP_SIZE, Segment
from wgpy.tun.checksum import MODULUS, Rows, ones_sum, pseudo_header_sum
from wgpy.tun.layout import U8, Column

_FRAGMENTED: Final = 0x3FFF  # IPv4: an offset, or more fragments
_LONGEST_PLAIN_ACK: Final = HEADER_SIZE + TIMESTAMP_SIZE  # with SACK blocks each tells something of its own
_V4: Final = 0x45  # the first byte of an IPv4 packet without options
_ADDRESSES: Final = {IPV4_HEADER_SIZE: 12, IPV6_HEADER_SIZE: 8}  # where in the header they are
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
            and (size > 0 or (offset >> 2 <= _LONGEST_PLAIN_ACK and acknowledgement != self.acknowledgement))
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

    def take(self) -> Iterator[tuple[bytes, Segment]]:
        """The segments of one connection after the other, each with its connection's key, and forget them."""
        flows, self._flows = self._flows, {}
        return (
            (key, run if isinstance(run, Segment) else run.segment()) for key, runs in flows.items() for run in runs
        )

    def add(self, key: bytes, segment: Segment) -> None:
        """Add what came in one packet."""
        runs = self._flows.get(key)
        if runs is None:
            self._flows[key] = [segment]
            return
        number, acknowledgement, flags, window, options, payload, _, marked = segment
        run = _last(runs)
        if not run.takes(number, acknowledgement, (HEADER_SIZE + len(options)) << 2, flags, len(payload), marked):
            runs.append(segment)
            return
        run.flags |= flags
        run.acknowledgement, run.window, run.options = acknowledgement, window, options
        run.following = (number + len(payload)) & MASK
        run.packets += 1
        if payload:
            run.pieces.append(payload)

    def gather(self, burst: Burst, addresses: Container[bytes]) -> list[int]:
        """Sort the packets of a burst that go to `addresses`; returns the numbers of those to be looked at alone."""
        others: list[int] = []
        lengths = burst.lengths
        count, length = len(lengths), lengths[0]
        if count == 1:
            self._look(burst, 0, addresses, others)
            return others
        if lengths.count(length) < count:
            ((length, _),) = Counter(lengths).most_common(1)
            if (count - 1) * burst.stride + TRANSPORT_HEADER_SIZE + length > len(burst.view):
                count -= 1  # the last slot is a short one
        first = burst.view[lengths.index(length) * burst.stride + TRANSPORT_HEADER_SIZE] if length else 0
        l4 = IPV4_HEADER_SIZE if first == _V4 else IPV6_HEADER_SIZE if first >> 4 == 6 else 0
        if count > 1 and l4 and length >= l4 + HEADER_SIZE and _are_many(burst, count, length, l4):
            self._sort(burst, count, length, l4, addresses, others)
        else:
            count = 0
        for i in range(count, len(lengths)):
            self._look(burst, i, addresses, others)
        return others

    def _look(self, burst: Burst, i: int, addresses: Container[bytes], others: list[int]) -> None:
        """Add one packet, if it is plain."""
        found = _plain(bytes(burst.packet(i)), addresses)
        if found is not None:
            self.add(*found)
        elif burst.lengths[i]:
            others.append(i)

    def _sort(
        self, burst: Burst, count: int, length: int, l4: int, addresses: Container[bytes], others: list[int]
    ) -> None:
        """Add the first `count` packets, of which most have `length` bytes: as many at once as continue one another."""
        view, stride, lengths, at = burst.view, burst.stride, burst.lengths, TRANSPORT_HEADER_SIZE
        cache = burst.cache or ViewCache(view)
        from_addresses = _ADDRESSES[l4]
        rows = cache.recall(Rows, at + from_addresses, stride, count, length - from_addresses)
        odd = rows.differences(-(TCP + length - l4)) != 0
        if l4 == IPV4_HEADER_SIZE:
            odd |= cache.recall(Rows, at, stride, count, IPV4_HEADER_SIZE).differences(0) != 0
        if lengths.count(length) < len(lengths):
            odd |= np.array(lengths[:count]) != length
        shared = view[lengths.index(length) * stride + at + l4 + 12]  # offset of the payload, of most packets
        size = length - l4 - (shared >> 4) * 4
        starts, payloads = list(range(count)), b""
        if size > 0:
            headers = cache.recall(_Headers, at, stride, count, l4, length - size, size)
            starts, payloads = headers.starts(odd), headers.payloads.tobytes()
        is_v4 = l4 == IPV4_HEADER_SIZE
        ours = slice(4, 8) if is_v4 else slice(16, 32)
        version, stated_length = (_V4, length) if is_v4 else (0x60, length - IPV6_HEADER_SIZE)
        unpack, flows, strange = _fields(l4).unpack_from, self._flows, odd.any()
        for i, stop in zip(starts, [*starts[1:], count], strict=True):
            first, second, stated, fragment, protocol, key, number, acknowledgement, offset, flags, window = unpack(
                view, at + i * stride
            )
            end = l4 + (offset >> 4) * 4
            if (
                (strange and odd[i])
                or stated != stated_length
                or protocol != TCP
                or not l4 + HEADER_SIZE <= end <= length
                or (fragment & _FRAGMENTED if is_v4 else first & 0xF0 != version)
                or (is_v4 and first != version)
                or (stop - i > 1 and (flags & ~PSH != ACK or offset != shared))
                or (key not in flows and key[ours] not in addresses)
            ):
                for each in range(i, stop):
                    self._look(burst, each, addresses, others)
                continue
            marked = (second & 3 if is_v4 else second >> 4 & 3) == CE
            last = at + (stop - 1) * stride
            payload = payloads[i * size : stop * size] if offset == shared else bytes(view[last + end : last + length])
            runs = flows.setdefault(key, [])
            run = _last(runs) if runs else None
            if run is None or not run.takes(number, acknowledgement, offset, flags, len(payload), marked):
                run = _Run(number, acknowledgement, offset, flags, window, marked)
                runs.append(run)
            if stop - i > 1:
                *_, acknowledgement, _, its_flags, window = unpack(view, last)
                flags |= its_flags
            run.flags |= flags
            run.acknowledgement, run.window = acknowledgement, window
            run.options = bytes(view[last + l4 + HEADER_SIZE : last + end])
            run.following = (number + len(payload)) & MASK
            run.packets += stop - i
            if payload:
                run.pieces.append(payload)


class _Headers:
    """The headers and payloads of many packets of a burst, as arrays over its buffer."""

    __slots__ = ("_bytes", "_mask", "_sequences", "_size", "payloads")

    def __init__(self, buffer: memoryview, at: int, stride: int, count: int, l4: int, end: int, size: int) -> None:
        """`count` packets are `stride` bytes apart, the first at `at`, each with `size` bytes of payload from `end`."""
        self._bytes: Column = np.ndarray((count, l4 + HEADER_SIZE), U8, buffer, at, (stride, 1))
        self._sequences: Column = np.ndarray((count,), ">u4", buffer, at + l4 + 4, (stride,))
        self._mask = _mask(l4)
        self._size = size
        self.payloads: Column = np.ndarray((count, size), U8, buffer, at + end, (stride, 1))

    def starts(self, odd: Column) -> list[int]:
        """The numbers of the packets that do not continue the packet before; those that are `odd` stand alone."""
        differs = self._bytes[1:] ^ self._bytes[:-1]
        differs &= self._mask
        breaks = differs.any(1)
        sequences = self._sequences.astype(np.uint32)
        breaks |= sequences[1:] - sequences[:-1] != self._size
        breaks |= odd[1:]
        breaks |= odd[:-1]
        return [0, *(breaks.nonzero()[0] + 1).tolist()]


@lru_cache(maxsize=2)
def _mask(l4: int) -> Column:
    """The bits that packets share which continue one another: the window and the acknowledgement are the last's."""
    mask = bytearray(b"\xff" * (l4 + HEADER_SIZE))
    if l4 == IPV4_HEADER_SIZE:
        mask[4:6] = mask[10:12] = bytes(2)  # id, checksum
    mask[l4 + 4 : l4 + 12] = bytes(8)
    mask[l4 + 13] = ~PSH & 0xFF
    mask[l4 + 14 : l4 + 20] = bytes(6)  # the window, the checksum, the urgent pointer
    return np.frombuffer(mask, U8)


def _last(runs: list[_Run | Segment]) -> _Run:
    run = runs[-1]
    if isinstance(run, Segment):
        run = runs[-1] = _Run.of(run)
    return run


@lru_cache(maxsize=2)
def _fields(l4: int) -> Struct:
    """The fields of a packet that tell what it is."""
    return Struct(">BBH2xHxB2x12sIIBBH" if l4 == IPV4_HEADER_SIZE else ">BB2xH0sBx36sIIBBH")


def _are_many(burst: Burst, count: int, length: int, l4: int) -> bool:
    """Whether numpy is cheaper for `count` packets of one length: long ones, or neighbours of one connection."""
    if count * length >= _MANY:
        return True
    view, stride = burst.view, burst.stride
    start, size = TRANSPORT_HEADER_SIZE + _ADDRESSES[l4], l4 + 4 - _ADDRESSES[l4]
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
    at = _ADDRESSES[l4]
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
