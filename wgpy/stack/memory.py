"""What all connections of a host may hold together: a bound, whatever peers send and applications leave unread."""

from __future__ import annotations


class Budget:
    """Bytes that may be promised to peers as receive windows. What was promised is never taken back."""

    __slots__ = ("limit", "promised")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self.promised: int = 0

    def take(self, wanted: int, least: int = 0) -> int:
        """Promise as much of `wanted` bytes as is left, and `least` in any case; returns how many."""
        granted = max(min(wanted, self.limit - self.promised), min(wanted, least), 0)
        self.promised += granted
        return granted

    def give_back(self, count: int) -> None:
        """So many promised bytes were read by the application, or their connection has ended."""
        self.promised -= count
