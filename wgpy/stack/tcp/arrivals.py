"""What came together, connection by connection.

Bursts are added until all that the socket had is there: each connection is then handled once, and acknowledges once.
With many connections, whose packets come mixed, that is most of the cost: a connection costs as much as ten packets.

Of packets of one length, all headers are unpacked at once, numpy sums all packets, and payloads of neighbours are
copied together. For a few packets of different connections, as requests and answers come, that would cost more than it
saves: `_plain` looks at each. Whatever is not plain TCP is left to `ip.parse` and `lone`.
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
from wgpy.tun.layout import U8

_FRAGMENTED: Final = 0x3FFF  # IPv4: an offset, or more fragments
_LONGEST_PLAIN_ACK: Final = HEADER_SIZE + TIMESTAMP_SIZE  # with SACK blocks each tells something of its own
_FIELDS: Final = 11
_V4: Final = 0x45  # the first byte of an IPv4 packet without options
_ADDRESSES: Final = {IPV4_HEADER_SIZE: 12, IPV6_HEADER_SIZE: 8}  # where in the header they are
_MANY: Final = 8000  # bytes of packets of one length from which numpy is faster, whatever connections they belong to


class _Run:
    """Segments of one connection that continue one another."""

    __slots__ = (
        "acknowledgement", "flags", "following", "marked", "number", "offset", "options", "packets", "pieces", "rows",
        "window",
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
        self.rows: list[int] = []  # its packets in the burst that is being looked at

    def takes(self, number: int, acknowledgement: int, offset: int, flags: int, size: int, marked: bool) -> bool:
        """Whether a segment with `size` bytes of payload continues it, so that one look at both is enough."""
        return (
            number == self.following
            and offset == self.offset
            and self.flags & ~PSH == ACK
            and flags & ~(PSH | FIN) == ACK
            and marked == self.marked
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
        lengths = burst.lengths
        count, length = len(lengths), lengths[0]
        if lengths.count(length) < count:
            ((length, _),) = Counter(lengths).most_common(1)
            if (count - 1) * burst.stride + TRANSPORT_HEADER_SIZE + length > len(burst.view):
                count -= 1  # the last slot is a short one
        first = burst.view[lengths.index(length) * burst.stride + TRANSPORT_HEADER_SIZE] if length else 0
        l4 = IPV4_HEADER_SIZE if first == _V4 else IPV6_HEADER_SIZE if first >> 4 == 6 else 0
        others: list[int] = []
        if count > 1 and l4 and length >= l4 + HEADER_SIZE and _are_many(burst, count, length, l4):
            for run in self._sort(burst, count, length, l4, addresses, others):
                if run.rows:
                    _copy(burst, run, length, l4)
        else:
            count = 0
        for i in range(count, len(lengths)):
            found = _plain(bytes(burst.packet(i)), addresses)
            if found is not None:
                self.add(*found)
            else:
                others.append(i)
        return [i for i in others if lengths[i]]

    def _sort(
        self, burst: Burst, count: int, length: int, l4: int, addresses: Container[bytes], others: list[int]
    ) -> list[_Run]:
        """Add the numbers of packets to runs: of the first `count` those of `length` bytes. Returns the runs."""
        view, stride, lengths, at = burst.view, burst.stride, burst.lengths, TRANSPORT_HEADER_SIZE
        cache = burst.cache or ViewCache(view)
        from_addresses = _ADDRESSES[l4]
        rows = cache.recall(Rows, at + from_addresses, stride, count, length - from_addresses)
        wrong = rows.differences(-(TCP + length - l4)) != 0
        if l4 == IPV4_HEADER_SIZE:
            wrong |= cache.recall(Rows, at, stride, count, IPV4_HEADER_SIZE).differences(0) != 0
        bad = set(np.flatnonzero(wrong).tolist()) if wrong.any() else ()
        fields = iter(_fields(l4, stride, count).unpack_from(view, at))
        ours = slice(4, 8) if l4 == IPV4_HEADER_SIZE else slice(16, 32)
        stated_length = length if l4 == IPV4_HEADER_SIZE else length - IPV6_HEADER_SIZE
        version = _V4 if l4 == IPV4_HEADER_SIZE else 0x60
        is_v6 = version == 0x60
        flows, touched = self._flows, []
        i = -1
        for first, second, stated, fragment, protocol, key, number, acknowledgement, offset, flags, window in zip(
            *[fields] * _FIELDS, strict=True
        ):
            i += 1
            if lengths[i] != length:
                found = _plain(bytes(burst.packet(i)), addresses)
                if found is None:
                    others.append(i)
                else:
                    before = flows.get(found[0], ())[-1:]
                    if before and isinstance(before[0], _Run) and before[0].rows:
                        _copy(burst, before[0], length, l4)
                    self.add(*found)
                continue
            size = length - l4 - (offset >> 4) * 4
            if (
                stated != stated_length
                or protocol != TCP
                or i in bad
                or size < 0
                or offset < 0x50
                or ((first & 0xF0 if is_v6 else first) != version)
                or (not is_v6 and fragment & _FRAGMENTED)
            ):
                others.append(i)
                continue
            marked = (second >> 4 & 3 if is_v6 else second & 3) == CE
            runs = flows.get(key)
            if runs is None:
                if key[ours] not in addresses:
                    others.append(i)
                    continue
                runs = flows[key] = []
            run = _last(runs) if runs else None
            if run is None or not run.takes(number, acknowledgement, offset, flags, size, marked):
                run = _Run(number, acknowledgement, offset, flags, window, marked)
                runs.append(run)
            if not run.rows:
                touched.append(run)
            run.flags |= flags
            run.acknowledgement, run.window = acknowledgement, window
            run.following = (number + size) & MASK
            run.rows.append(i)
        return touched


def _last(runs: list[_Run | Segment]) -> _Run:
    run = runs[-1]
    if isinstance(run, Segment):
        run = runs[-1] = _Run.of(run)
    return run


def _copy(burst: Burst, run: _Run, length: int, l4: int) -> None:
    """Copy the payloads of a run's packets out of a burst, and the options of the last."""
    view, stride, rows = burst.view, burst.stride, run.rows
    begin = TRANSPORT_HEADER_SIZE + l4
    end = begin + (run.offset >> 4) * 4
    size = TRANSPORT_HEADER_SIZE + length - end
    last = rows[-1] * stride
    run.options = bytes(view[last + begin + HEADER_SIZE : last + end])
    run.packets += len(rows)
    run.rows = []
    if not size:
        return
    if rows[-1] - rows[0] == len(rows) - 1:
        run.pieces.append(np.ndarray((len(rows), size), U8, view, rows[0] * stride + end, (stride, 1)).tobytes())
    else:
        run.pieces.append(b"".join([view[i * stride + end : i * stride + end + size] for i in rows]))


@lru_cache(maxsize=256)
def _fields(l4: int, stride: int, count: int) -> Struct:
    """Of packets `stride` bytes apart, the fields that `_sort` looks at."""
    one = "BBH2xHxB2x12sIIBBH" if l4 == IPV4_HEADER_SIZE else "BB2xH0sBx36sIIBBH"
    size = Struct(">" + one).size
    return Struct(">" + one + f"{stride - size}x{one}" * (count - 1))


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
        l4, 0, 1
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
