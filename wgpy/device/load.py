"""Is a queue of handshake messages under load? The kernel's question (receive.c), asked of what waits in a socket.

The kernel is under load when an eighth of its queue of 4,096 is taken, or was within the last second. We have no queue
of our own: a message is handled as it is read, and what waits, waits in the socket. Such a queue is under load when it
is half full, for then messages will soon be lost, or when what waits would be answered too late, by the time that
one message takes on this machine.
"""

from __future__ import annotations

from typing import Final

from wgpy.constants import REKEY_TIMEOUT, UNDER_LOAD_STICKINESS

LONGEST_WAIT: Final = REKEY_TIMEOUT / 2  # seconds: half of what an initiator waits for before it tries again
FULL_SHARE: Final = 0.5  # of the queue's capacity

# The time of one message is the mean over about the last thousand; a process begins with this.
_REMEMBERED: Final = 1024
_FIRST_GUESS: Final = 100e-6  # seconds


class LoadMeter:
    """The load of one queue. Times are seconds."""

    __slots__ = ("_handled", "_seconds", "_under_load_until")

    def __init__(self) -> None:
        self._handled = _REMEMBERED / 2
        self._seconds = self._handled * _FIRST_GUESS
        self._under_load_until = 0.0

    def handled(self, count: int, seconds: float) -> None:
        """Tell that it took `seconds` to read `count` messages and do what they asked for."""
        self._handled += count
        self._seconds += seconds
        if self._handled > _REMEMBERED:
            self._handled /= 2
            self._seconds /= 2

    def is_present(self, waiting: float, capacity: float, now: float) -> bool:
        """Whether there is load at `now`, or was within the last second.

        `waiting` messages are in the queue, which can hold `capacity`.
        """
        if waiting > FULL_SHARE * capacity or waiting * self._seconds > LONGEST_WAIT * self._handled:
            self._under_load_until = now + UNDER_LOAD_STICKINESS
        return now < self._under_load_until
