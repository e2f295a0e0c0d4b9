"""Whose turn it is to be read: strangers wait while data waits, and only then.

Time that data does not need belongs to everybody else who has sent something, so no queue is left unread while the loop
is idle. While data keeps the loop busy, what the other queues bring in vain gets an eighth of the time.
"""

from __future__ import annotations

from typing import Final

SLICE: Final = 0.0005  # seconds for which a queue of strangers is read before data is looked for again
SHARE_IN_VAIN: Final = 0.125  # of the time, while data keeps coming
MOST_IN_VAIN: Final = 0.001  # seconds of it that are saved up


class Turns:
    """The turns of one port's queues. Times are seconds.

    `data` counts the turns in which data came or went.
    """

    def __init__(self) -> None:
        self.data = 0
        self._left = MOST_IN_VAIN
        self._since = 0.0

    def is_strangers(self, now: float) -> bool:
        """Whether strangers may be read at `now` though data has just come or gone."""
        self._left = min(MOST_IN_VAIN, self._left + (now - self._since) * SHARE_IN_VAIN)
        self._since = now
        return self._left > 0

    def spend(self, seconds: float) -> None:
        """Strangers were read for so long, in vain, though data had just come or gone."""
        # A process that was kept from running meanwhile owes nothing for that.
        self._left = max(self._left - seconds, -MOST_IN_VAIN)
