"""Replay protection: which counters of a session were already accepted (RFC 6479; kernel receive.c)."""

from __future__ import annotations

from typing import Final

from wgpy.constants import REJECT_AFTER_MESSAGES, REPLAY_WINDOW

_RING: Final = 8192  # a power of two above the window, so that a counter's place is a mask
_MASK: Final = _RING - 1
_BEHIND: Final = REPLAY_WINDOW + 1


class ReplayWindow:
    """Accepts each counter once, in any order, up to REPLAY_WINDOW behind the newest.

    The RFC keeps a bit for each counter. This keeps a byte, 8 KiB in all, because Python sets a byte without arithmetic
    on words. `newest` is the greatest accepted counter + 1, or 0 at the start.
    """

    __slots__ = ("_seen", "newest")

    def __init__(self) -> None:
        self.newest: int = 0
        self._seen = bytearray(_RING)

    def accept(self, counter: int) -> bool:
        """Accept an authenticated counter (0 or more): True if it is new, and False from then on.

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
        """Accept counters that are consecutive and newer than all before: True; or do nothing: False."""
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
        """Clear the places, last used by older counters, of `count` skipped counters from `counter` on."""
        self._mark(counter, bytes(count))

    def _mark(self, counter: int, marks: bytes) -> None:
        """Set the bytes of as many counters, at most _RING, from `counter` on."""
        start = counter & _MASK
        end = start + len(marks)
        self._seen[start:end] = marks[: _RING - start]
        if end > _RING:
            self._seen[: end - _RING] = marks[_RING - start :]
