"""When connections want to be called: a heap with one entry for each, corrected when its time comes."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from math import inf

from wgpy.stack.tcp.connection import Connection


class Deadlines:
    """Moving a deadline later, as nearly every segment does, costs nothing. Times are seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Connection]] = []
        self._tiebreak = count()

    def note(self, connection: Connection) -> None:
        """The connection's deadline may have moved."""
        at = connection.deadline
        if at < connection.wakes_at:
            connection.wakes_at = at
            heappush(self._heap, (at, next(self._tiebreak), connection))

    def forget(self, connection: Connection) -> None:
        """It is over: its entry is removed when its time comes."""
        connection.wakes_at = inf

    def next(self) -> float:
        """The first deadline; inf: there is none."""
        while self._heap:
            at, _, connection = self._heap[0]
            if at == connection.wakes_at == connection.deadline:
                return at
            heappop(self._heap)
            if at == connection.wakes_at:
                connection.wakes_at = inf
                self.note(connection)
        return inf

    def pop(self) -> Connection:
        """The connection whose deadline `next` is."""
        _, _, connection = heappop(self._heap)
        connection.wakes_at = inf
        return connection
