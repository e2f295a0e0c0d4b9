"""What an application has written and the peer has not acknowledged."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

_SMALL: Final = 4096  # bytes: writes shorter than that are joined
_JOINED: Final = 1 << 16


class SendBuffer:
    """What was written and not acknowledged, in the chunks it came in.

    They lie in lists, because an empty deque takes 760 bytes and most connections are idle.
    """

    __slots__ = ("_chunks", "_starts", "end", "start")

    def __init__(self) -> None:
        self.start: int = 1
        self.end: int = 1
        self._starts: list[int] = []
        self._chunks: list[bytes | bytearray] = []

    def append(self, data: bytes) -> None:
        last = self._chunks[-1] if self._chunks else b""
        if len(data) < _SMALL and isinstance(last, bytearray) and len(last) < _JOINED:
            last += data
        else:
            self._starts.append(self.end)
            self._chunks.append(bytearray(data) if len(data) < _SMALL else data)
        self.end += len(data)

    def part(self, start: int, end: int) -> bytes | memoryview:
        """The bytes from one offset to another: a view where one chunk holds them all."""
        i = bisect_right(self._starts, start) - 1
        if i < 0 or start >= end:
            return b""
        first = self._chunks[i]
        at = start - self._starts[i]
        if end <= self._starts[i] + len(first):
            return (
                memoryview(first)[at : at + end - start]
                if isinstance(first, bytes)
                else bytes(first[at : at + end - start])
            )
        parts = [memoryview(first)[at:]]
        while (i := i + 1) < len(self._chunks) and self._starts[i] < end:
            parts.append(memoryview(self._chunks[i])[: end - self._starts[i]])
        return b"".join(parts)

    def release(self, upto: int) -> None:
        """What lies before `upto` was acknowledged."""
        self.start = max(self.start, min(upto, self.end))
        over = bisect_right(self._starts, self.start) - 1 if self.start < self.end else len(self._starts)
        if over > 0:
            del self._starts[:over], self._chunks[:over]

    def clear(self) -> None:
        self._starts.clear()
        self._chunks.clear()
        self.start = self.end
