"""Many packets of one shape at once, by numpy: which of them continue one another, and what those carry together.

Their headers are arrays of 32-bit words, one row for each packet. Numbers are bytes where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from wgpy.stack.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE
from wgpy.stack.tcp.header import ACK, HEADER_SIZE, PSH, TIMESTAMP_SIZE, Segment
from wgpy.tun.layout import U8, U32, Column

LONGEST_PLAIN_ACK: Final = HEADER_SIZE + TIMESTAMP_SIZE  # with SACK blocks each tells something of its own
ADDRESSES: Final = {IPV4_HEADER_SIZE: 12, IPV6_HEADER_SIZE: 8}  # where in the header they are
_MOST: Final = 2 << 20  # bytes that may wait to be sorted

Words = npt.NDArray[np.uint32]


class Shape(NamedTuple):
    """What packets have in common that are looked at together: data, or acknowledgements, and nothing else."""

    l4: int  # where TCP's header begins
    end: int  # where the payload begins
    size: int  # of the payload
    marked: bool  # whether they bear CE (RFC 3168)


class Packets:
    """The headers and payloads of packets in a buffer, whatever lies there later."""

    __slots__ = ("headers", "payloads")

    def __init__(self, buffer: memoryview, at: int, stride: int, count: int, end: int, size: int) -> None:
        """`count` packets are `stride` apart, the first at `at`; each has `size` of payload behind `end` of headers."""
        self.headers: Words = np.ndarray((count, end // 4), np.uint32, buffer, at, (stride, 4))
        self.payloads: Column = np.ndarray((count, size), U8, buffer, at + end, (stride, 1))

    def unlike(self, sample: bytes, l4: int) -> npt.NDArray[np.bool_]:
        """Which of them differ from a header in more than the connection, and their place in it."""
        differs = self.headers ^ np.frombuffer(sample, np.uint32, self.headers.shape[1])
        differs &= _mask(l4, self.headers.shape[1])
        unlike: npt.NDArray[np.bool_] = np.logical_or.reduce(differs, 1)
        return unlike


@lru_cache(maxsize=8)
def _mask(l4: int, words: int) -> Words:
    """The bits of a header that packets of one shape share."""
    mask = bytearray(words * 4)
    if l4 == IPV4_HEADER_SIZE:
        mask[0:4] = b"\xff\x03\xff\xff"  # the version, ECN, the length
        mask[6:8] = b"\x3f\xff"  # a fragment
        mask[9] = 0xFF
        mask[16:20] = b"\xff" * 4
    else:
        mask[0:2] = b"\xf0\x30"
        mask[4:7] = b"\xff" * 3
        mask[24:40] = b"\xff" * 16
    mask[l4 + 12], mask[l4 + 13] = 0xFF, ~PSH & 0xFF
    return np.frombuffer(bytes(mask), np.uint32)


def starts(headers: Words, shape: Shape, odd: npt.NDArray[np.bool_] | None = None) -> list[int]:
    """The numbers of the packets that do not continue the packet before; those that are `odd` stand alone."""
    ports = shape.l4 // 4
    keys = headers[:, ADDRESSES[shape.l4] // 4 : ports + 1]
    breaks = (keys[1:] != keys[:-1]).any(1)
    numbers = headers[:, ports + 1].view(U32).astype(np.uint32)
    breaks |= numbers[1:] - numbers[:-1] != shape.size
    if not shape.size:  # nothing may go unnoticed of acknowledgements, such as that one came twice
        acknowledgements = headers[:, ports + 2]
        breaks |= acknowledgements[1:] == acknowledgements[:-1]
        breaks |= shape.end - shape.l4 > LONGEST_PLAIN_ACK
    if odd is not None:
        breaks |= odd[1:]
        breaks |= odd[:-1]
    return [0, *(breaks.nonzero()[0] + 1).tolist()]


def stretches(
    headers: Words, payloads: Column, begins: list[int], shape: Shape, order: npt.NDArray[np.intp] | None = None
) -> Iterator[tuple[int, bytes, Segment]]:
    """Where each stretch begins, its connection's key, and its packets as one segment.

    `order`: where the payloads of the headers' packets are; None: at the same place.
    """
    raw, end, l4, marked = headers.tobytes(), shape.end, shape.l4, shape.marked
    first, last = _first(l4).unpack_from, _LAST.unpack_from
    for i, stop in zip(begins, [*begins[1:], len(headers)], strict=True):
        key, number = first(raw, i * end)
        at = stop * end
        acknowledgement, window = last(raw, at - end + l4 + 8)
        payload = (payloads[i:stop] if order is None else payloads[order[i:stop]]).tobytes() if shape.size else b""
        options = raw[at - end + l4 + HEADER_SIZE : at]
        yield i, key, Segment(number, acknowledgement, ACK, window, options, payload, stop - i, marked)


_LAST: Final = Struct(">I2xH")  # the acknowledgement and the window


@lru_cache(maxsize=2)
def _first(l4: int) -> Struct:
    """The key of the connection, and the sequence number."""
    skipped = ADDRESSES[l4]
    return Struct(f">{skipped}x{l4 + 4 - skipped}sI")


class Mixed:
    """Packets of many connections from several bursts, which are sorted by connection when all are there."""

    def __init__(self) -> None:
        self.shape: Shape | None = None  # of all that are here; None: none are
        self._headers: list[Words] = []
        self._payloads: list[Column] = []
        self._bytes = 0

    def begin(self, packets: Packets, shape: Shape) -> None:
        """Keep copies of packets as the first."""
        self.shape, self._headers, self._payloads = shape, [packets.headers.copy()], [packets.payloads.copy()]
        self._bytes = packets.headers.nbytes + packets.payloads.nbytes

    def add(self, packets: Packets, shape: Shape) -> bool:
        """Keep copies of more packets. False if none are here, or too many, or of another shape."""
        if shape != self.shape or self._bytes > _MOST:
            return False
        self._headers.append(packets.headers.copy())
        self._payloads.append(packets.payloads.copy())
        self._bytes += packets.headers.nbytes + packets.payloads.nbytes
        return True

    def take(self) -> Iterator[tuple[int, bytes, Segment]]:
        """As `stretches`, and forget them."""
        shape, self.shape = self.shape, None
        if shape is None:
            return iter(())
        headers, payloads = np.concatenate(self._headers), np.concatenate(self._payloads)
        self._headers, self._payloads = [], []
        order = np.argsort(headers[:, shape.l4 // 4], kind="stable")  # by their ports
        headers = headers[order]
        return stretches(headers, payloads, starts(headers, shape), shape, order)
