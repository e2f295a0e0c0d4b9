"""Whether what was sent again had been lost. If it was only late, the congestion window is given back (RFC 4015).

There are two witnesses. An acknowledgement that echoes a timestamp from before the first repetition answers the
original (Eifel, RFC 3522). A peer that reports each repetition as a duplicate has received all originals (RFC 3708).
"""

from __future__ import annotations

from math import inf

from wgpy.stack.tcp.congestion import Saved


class Repetitions:
    """What was sent again since the window was last reduced. Times are seconds."""

    __slots__ = ("_doubtful", "_first_at", "_start", "saved")

    def __init__(self) -> None:
        self.saved: Saved | None = None  # the window before the reduction; None: there is nothing to give back
        self._start = 0  # the first offset that may be repeated
        self._doubtful = 0  # bytes that were repeated and not reported as duplicates
        self._first_at = inf

    def begin(self, saved: Saved | None, start: int) -> None:
        """The window was reduced; what is repeated from now on, from offset `start` on, is watched."""
        self.saved, self._start = saved, start
        self._doubtful, self._first_at = 0, inf

    def left(self, size: int, now: float) -> None:
        """So many bytes have left again."""
        self._doubtful += size
        self._first_at = min(self._first_at, now)

    @property
    def has_none(self) -> bool:
        """The window was reduced, and nothing has been repeated since."""
        return self.saved is not None and self._first_at == inf

    def came_twice(self, start: int, end: int) -> bool:
        """The peer reports a duplicate. Whether everything that was repeated had come before."""
        if self.saved is None or start < self._start or not self._doubtful:
            return False
        self._doubtful = max(0, self._doubtful - (end - start))
        return not self._doubtful

    def answers_original(self, echoed: int | None) -> bool:
        """Whether an acknowledgement answers what left before the first repetition, at `echoed` milliseconds."""
        if self.saved is None or echoed is None or self._first_at == inf:
            return False
        return echoed < int(self._first_at * 1000)


def tells_a_duplicate(sacks: list[tuple[int, int]], acknowledged: int) -> bool:
    """Whether the first of a SACK's ranges is what came twice (RFC 2883, 4); all before `acknowledged` has come."""
    start, end = sacks[0]
    if start < acknowledged:
        return start >= acknowledged - (1 << 30)
    return len(sacks) > 1 and sacks[1][0] <= start and end <= sacks[1][1]
