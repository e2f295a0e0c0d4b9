"""Segments of short super-packets, of many streams: put into slots one by one, with all their headers made together.

A call of numpy's costs as much as copying several segments, so `splitting` takes longer for a super-packet of two than
for the same packets one by one.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from wgpy.tun.checksum import MODULUS, WORD
from wgpy.tun.layout import CHECK_AT, CWR, FIN, PSH, TCP, U8, U16, U32
from wgpy.tun.splitting import Segments, shorten

FEW: Final = 5  # segments: up to so many take less time here


class Spread:
    """Segments in slots that are anywhere in one memory: the payloads are there, the headers are yet to be written."""

    def __init__(self, memory: memoryview) -> None:
        """None as yet."""
        self._memory = memory
        self._forms: dict[tuple[object, ...], _Form] = {}

    def add(self, segments: Segments, packet: memoryview, at: int, stride: int) -> None:
        """Put a super-packet's segments into slots: the first packet begins at `at`."""
        memory, end, size, count, total = self._memory, segments.end, segments.size, segments.pieces, len(packet)
        memory[at : at + total] = packet
        for i in range(count - 1, 0, -1):
            start = end + i * size
            length = min(size, total - start)
            to, start = at + end + i * stride, at + start
            memory[to : to + length] = memory[start : start + length]
        form = self._forms.get(segments[:5])
        if form is None:
            form = self._forms[segments[:5]] = _Form(segments)
        form.places += range(at, at + count * stride, stride)
        form.firsts += [at] * count
        form.steps += range(count)
        if total < end + count * size:
            form.shorter.append((at + (count - 1) * stride, total - (count - 1) * size))

    def write_headers(self) -> None:
        """Write all headers, as `splitting.place` does: their checksums are unfinished. Then there are no segments."""
        for form in self._forms.values():
            form.write_headers(self._memory)
        self._forms.clear()


class _Form:
    """Segments of one form, of any super-packets."""

    __slots__ = ("_segments", "firsts", "places", "shorter", "steps")

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self.places: list[int] = []  # where the packets begin,
        self.firsts: list[int] = []  # for each where the first one of its super-packet begins,
        self.steps: list[int] = []  # and how many of them come before it
        self.shorter: list[tuple[int, int]] = []  # packets that are not full: where they begin, and their lengths

    def write_headers(self, memory: memoryview) -> None:
        """Make all headers by arrays."""
        version, protocol, l4, end, size, _, addresses = self._segments
        longest = end + size
        anywhere = np.ndarray((len(memory) - end + 1,), f"V{end}", memory, 0, (1,))  # a header at each byte
        steps, chosen = np.array(self.steps), anywhere[np.array(self.firsts)]
        headers = chosen.view(U32).reshape(-1, end // 4)
        words, sum_of = headers.view(WORD), partial(np.add.reduce, axis=1, dtype=np.int64)
        if version == 4:
            words[:, 1] = _swapped(longest)
            ids = headers.view(U16)[:, 2]
            np.add(ids, steps, out=ids, casting="unsafe")
            words[:, 5] = 0
            words[:, 5] = -sum_of(words[:, : l4 // 2]) % MODULUS
        else:
            words[:, 2] = _swapped(longest - 40)
        sums = sum_of(words[:, addresses.start // 2 : addresses.stop // 2])
        words[:, (l4 + CHECK_AT[protocol]) // 2] = (sums + (protocol + longest - l4) * 256) % MODULUS
        if protocol == TCP:
            sequences = headers[:, l4 // 4 + 1]
            np.add(sequences, steps * size, out=sequences, casting="unsafe")
            flags = headers.view(U8)[:, l4 + 13]
            if np.count_nonzero(flags & (FIN | PSH | CWR)):
                flags[steps > 0] &= ~CWR & 0xFF
                flags[:-1][steps[1:] > 0] &= ~(FIN | PSH) & 0xFF
        else:
            words[:, l4 // 2 + 2] = _swapped(longest - l4)
        anywhere[np.array(self.places)] = chosen
        for at, length in self.shorter:
            shorten(self._segments, memory, at, length)


def _swapped(word: int) -> int:
    """As a WORD."""
    return word >> 8 | (word & 0xFF) << 8
