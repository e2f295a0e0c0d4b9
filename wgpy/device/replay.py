"""Replay protection: which counters of a session were already accepted (RFC 6479; kernel receive.c)."""

from __future__ import annotations

from typing import Final

from wgpy.constants import REJECT_AFTER_MESSAGES, REPLAY_WINDOW

_RING: Final = 8192  # a power of two above the window, so that a counter's place is a mask
_MASK: Final = _RING - 1
_BEHIND: Final = REPLAY_WINDOW + 1


class ReplayWindow:
    """Accepts each counter once, in any order, up to REPLAY_WINDOW behind the newest.

    The RFC keeps a bit for each counter; here it is a byte, because setting one costs Python no arithmetic on words:
    8 KiB for each session.

    `newest` is the greatest accepted counter + 1, 0 at the start.
    """

    __slots__ = ("_seen", "newest")

    def __init__(self) -> None:
        self.newest: int = 0
        self._seen = bytearray(_RING)

    def accept(self, counter: int) -> bool:
        """Whether `counter` (0 or more, already authenticated) is new; then it is noted and is not new again.

        Refuses REJECT_AFTER_MESSAGES and beyond. Never raises; the work is bounded however far a counter jumps.
        """
        newest = self.newest
        if counter >= newest:
            if counter >= REJECT_AFTER_MESSAGES:
                return False
            if counter > newest:
                self._forget(newest, min(counter - newest, _RING))
            self._seen[counter & _MASK] = 1
            self.newest = counter + 1
            return True
        if counter + _BEHIND < newest or self._seen[counter & _MASK]:
            return False
        self._seen[counter & _MASK] = 1
        return True

    def accept_run(self, counters: tuple[int, ...]) -> bool:
        """Whether they are consecutive and newer than any before; then they are all noted, else nothing is done."""
        first, count = counters[0], len(counters)
        if first < self.newest or first + count > REJECT_AFTER_MESSAGES:
            return False
        if count > 1 and counters != tuple(range(first, first + count)):
            return False
        if first > self.newest:
            self._forget(self.newest, min(first - self.newest, _RING))
        self._mark(first, b"\1" * count)
        self.newest = first + count
        return True

    def _forget(self, counter: int, count: int) -> None:
        """Make room for `count` skipped counters from `counter` on, whose places older ones held."""
        self._mark(counter, bytes(count))

    def _mark(self, counter: int, marks: bytes) -> None:
        """Set what is noted of as many counters, at most _RING, from `counter` on."""
        start = counter & _MASK
        end = start + len(marks)
        self._seen[start:end] = marks[: _RING - start]
        if end > _RING:
            self._seen[: end - _RING] = marks[_RING - start :]
