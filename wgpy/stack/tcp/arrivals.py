"""What came together, connection by connection: one look at all headers of a burst, one sum over each packet.

Per packet there is one pass of a loop; payloads of neighbours are copied together. Whatever is not plain TCP of one
length is left to `ip.parse` and `lone`, which look at packets one by one.
"""

from __future__ import annotations

from collections.abc import Container
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

import numpy as np

from wgpy.burst import Burst, ViewCache, run_length
from wgpy.constants import TRANSPORT_HEADER_SIZE
from wgpy.device.ip import CE
from wgpy.stack.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, TCP, Drop, Packet
from wgpy.stack.tcp.header import ACK, FIN, HEADER, HEADER_SIZE, PSH, TIMESTAMP_SIZE, Segment
from wgpy.tun.checksum import MODULUS, Rows, ones_sum, pseudo_header_sum
from wgpy.tun.layout import U8

_FRAGMENTED: Final = 0x3FFF  # IPv4: an offset, or more fragments
_LONGEST_PLAIN_ACK: Final = HEADER_SIZE + TIMESTAMP_SIZE  # with SACK blocks each tells something of its own
_FIELDS: Final = 11


class _Run:
    """Segments of one connection that continue one another."""

    __slots__ = ("acknowledgement", "flags", "following", "marked", "number", "offset", "rows", "window")

    def __init__(self, number: int, acknowledgement: int, offset: int, flags: int, window: int, marked: bool) -> None:
        self.number = number
        self.acknowledgement = acknowledgement
        self.offset = offset
        self.flags = flags
        self.window = window
        self.marked = marked
        self.following = number
        self.rows: list[int] = []


class Arrivals(NamedTuple):
    """Segments by connection, and the numbers of the packets that are to be looked at alone."""

    segments: list[tuple[bytes, Segment]]
    others: list[int]


def gather(burst: Burst, addresses: Container[bytes]) -> Arrivals:
    """Sort the packets of a burst that go to `addresses`."""
    lengths = burst.lengths
    count = run_length(lengths)
    length = lengths[0]
    first = burst.view[TRANSPORT_HEADER_SIZE] if length else 0
    l4 = IPV4_HEADER_SIZE if first == 0x45 else IPV6_HEADER_SIZE if first >> 4 == 6 else 0
    if count < 2 or not l4 or length < l4 + HEADER_SIZE:
        return Arrivals([], [i for i, size in enumerate(lengths) if size])
    others: list[int] = []
    flows = _sort(burst, count, length, l4, addresses, others)
    segments = [(key, _segment(burst, run, length, l4)) for key, runs in flows.items() for run in runs]
    others += [i for i in range(count, len(lengths)) if lengths[i]]
    return Arrivals(segments, others)


def _sort(
    burst: Burst, count: int, length: int, l4: int, addresses: Container[bytes], others: list[int]
) -> dict[bytes, list[_Run]]:
    view, stride, at = burst.view, burst.stride, TRANSPORT_HEADER_SIZE
    cache = burst.cache or ViewCache(view)
    from_addresses = 12 if l4 == IPV4_HEADER_SIZE else 8
    rows = cache.recall(Rows, at + from_addresses, stride, count, length - from_addresses)
    wrong = rows.differences(-(TCP + length - l4)) != 0
    if l4 == IPV4_HEADER_SIZE:
        wrong |= cache.recall(Rows, at, stride, count, IPV4_HEADER_SIZE).differences(0) != 0
    bad = set(np.flatnonzero(wrong).tolist()) if wrong.any() else ()
    fields = iter(_fields(l4, stride, count).unpack_from(view, at))
    ours = slice(4, 8) if l4 == IPV4_HEADER_SIZE else slice(16, 32)
    stated_length = length if l4 == IPV4_HEADER_SIZE else length - IPV6_HEADER_SIZE
    version = 0x45 if l4 == IPV4_HEADER_SIZE else 0x60
    flows: dict[bytes, list[_Run]] = {}
    i = -1
    for first, second, stated, fragment, protocol, key, number, acknowledgement, offset, flags, window in zip(
        *[fields] * _FIELDS, strict=True
    ):
        i += 1
        is_v6 = version == 0x60
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
        ecn = second >> 4 & 3 if is_v6 else second & 3
        runs = flows.get(key)
        if runs is None:
            if key[ours] not in addresses:
                others.append(i)
                continue
            runs = flows[key] = []
        run = runs[-1] if runs else None
        if (
            run is None
            or number != run.following
            or offset != run.offset
            or run.flags & ~PSH != ACK
            or flags & ~(PSH | FIN) != ACK
            or (ecn == CE) != run.marked
            or (not size and (offset >> 2 > _LONGEST_PLAIN_ACK or acknowledgement == run.acknowledgement))
        ):
            run = _Run(number, acknowledgement, offset, flags, window, ecn == CE)
            runs.append(run)
        run.flags |= flags
        run.acknowledgement, run.window = acknowledgement, window
        run.following = (number + size) & 0xFFFFFFFF
        run.rows.append(i)
    return flows


def _segment(burst: Burst, run: _Run, length: int, l4: int) -> Segment:
    view, stride, rows = burst.view, burst.stride, run.rows
    begin = TRANSPORT_HEADER_SIZE + l4
    end = begin + (run.offset >> 4) * 4
    size = TRANSPORT_HEADER_SIZE + length - end
    last = rows[-1] * stride
    options = bytes(view[last + begin + HEADER_SIZE : last + end])
    if not size:
        payload = b""
    elif rows[-1] - rows[0] == len(rows) - 1:
        payload = np.ndarray((len(rows), size), U8, view, rows[0] * stride + end, (stride, 1)).tobytes()
    else:
        payload = b"".join([view[i * stride + end : i * stride + end + size] for i in rows])
    return Segment(run.number, run.acknowledgement, run.flags, run.window, options, payload, len(rows), run.marked)


@lru_cache(maxsize=256)
def _fields(l4: int, stride: int, count: int) -> Struct:
    """Of packets `stride` bytes apart, the fields that `_sort` looks at."""
    one = "BBH2xHxB2x12sIIBBH" if l4 == IPV4_HEADER_SIZE else "BB2xH0sBx36sIIBBH"
    size = Struct(">" + one).size
    return Struct(">" + one + f"{stride - size}x{one}" * (count - 1))


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
