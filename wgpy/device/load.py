"""Whether so many handshake messages wait in a socket that cookies are needed (paper, 5.3; kernel receive.c).

The kernel is under load when an eighth of its queue of 4,096 is taken, or was within the last second. We have no queue
of our own: messages are handled as they are read, and wait in the socket until then. A socket is under load when it is
half full, because messages will soon be lost, or when the last of those that wait would be answered too late, given the
time that one message takes on this machine.
"""

from __future__ import annotations

from typing import Final

from wgpy.constants import REKEY_TIMEOUT, UNDER_LOAD_STICKINESS

LONGEST_WAIT: Final = REKEY_TIMEOUT / 2  # seconds: half the time after which an initiator tries again
FULL_SHARE: Final = 0.5  # of the queue's capacity

# The time of one message is averaged over about the last thousand, beginning with a guess.
_REMEMBERED: Final = 1024
_FIRST_GUESS: Final = 100e-6  # seconds


class LoadMeter:
    """The load of one socket. Times are in seconds."""

    __slots__ = ("_handled", "_seconds", "_under_load_until")

    def __init__(self) -> None:
        self._handled = _REMEMBERED / 2
        self._seconds = self._handled * _FIRST_GUESS
        self._under_load_until = 0.0

    def handled(self, count: int, seconds: float) -> None:
        """Tell that it took `seconds` to read and handle `count` messages."""
        self._handled += count
        self._seconds += seconds
        if self._handled > _REMEMBERED:
            self._handled /= 2
            self._seconds /= 2

    def is_present(self, waiting: float, capacity: float, now: float) -> bool:
        """Whether the socket is under load at `now`, or was within the last second.

        `waiting` messages are in its queue, which can hold `capacity`.
        """
        if waiting > FULL_SHARE * capacity or waiting * self._seconds > LONGEST_WAIT * self._handled:
            self._under_load_until = now + UNDER_LOAD_STICKINESS
        return now < self._under_load_until
