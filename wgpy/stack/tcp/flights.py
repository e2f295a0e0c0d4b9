"""Ranges of what is sent: those that may leave, and those that have left."""

from __future__ import annotations

from typing import NamedTuple


class Flight:
    """A range that left at one time, seconds. It is under way until it is SACKed or lost."""

    __slots__ = ("at", "end", "is_lost", "is_sacked", "start", "tries")

    def __init__(self, start: int, end: int, at: float, tries: int = 1) -> None:
        self.start: int = start
        self.end: int = end
        self.at: float = at
        self.tries: int = tries
        self.is_sacked: bool = False
        self.is_lost: bool = False

    def split(self, at: int) -> Flight:
        """Keep what lies before `at`; returns the rest."""
        rest = Flight(at, self.end, self.at, self.tries)
        rest.is_sacked, rest.is_lost = self.is_sacked, self.is_lost
        self.end = at
        return rest


class Leaving(NamedTuple):
    """A range that may leave now."""

    start: int
    end: int
    is_repeated: bool
