"""When connections want to be called: a heap with one valid entry for each, corrected when its time comes."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Final

from wgpy.stack.tcp.connection import Connection

_AHEAD: Final = 0.02  # seconds
_LEAST: Final = 64  # entries, below which stale ones do not matter


class Deadlines:
    """Moving a deadline later, as nearly every segment does, costs nothing. Times are seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Connection]] = []
        self._tiebreak = count()
        self._clean_at = _LEAST  # entries

    def __len__(self) -> int:
        """How many entries there are, stale ones too: at most twice as many as connections, and a few."""
        return len(self._heap)

    def note(self, connection: Connection) -> None:
        """The connection's deadline may have moved."""
        at = connection.deadline
        if at < connection.wakes_at:
            connection.wakes_at = at
            heappush(self._heap, (at, next(self._tiebreak), connection))
            if len(self._heap) > self._clean_at:
                self._heap = [entry for entry in self._heap if entry[0] == entry[2].wakes_at]
                heapify(self._heap)
                self._clean_at = 2 * len(self._heap) + _LEAST

    def forget(self, connection: Connection) -> None:
        """It is over: its entry is removed when its time comes."""
        connection.wakes_at = inf

    def next(self) -> float:
        """When to look, which is at the first deadline or before it; inf: there is none."""
        return self._heap[0][0] if self._heap else inf

    def pop(self, now: float) -> Connection | None:
        """A connection whose deadline has come; None: there is none.

        Deadlines that have moved are corrected a little before their old time, many at once: each would cost a call.
        """
        while self._heap and self._heap[0][0] <= now + _AHEAD:
            at, _, connection = self._heap[0]
            if at == connection.wakes_at == connection.deadline and at > now:
                return None
            heappop(self._heap)
            if at != connection.wakes_at:
                continue
            connection.wakes_at = inf
            if connection.deadline <= now:
                return connection
            self.note(connection)
        return None
