"""Which of what is under way is lost, by time: RACK (RFC 8985, 6.2).

What left long enough before something that has come should have come, too. How long is enough depends on how far
packets were seen to overtake one another. What is under way is kept in the order in which it left, as the kernel does
(tcp_recovery.c, tsorted_sent_queue), so that each look finds a loss or is the last.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from math import inf
from typing import Final

from wgpy.stack.tcp.flights import Flight
from wgpy.stack.tcp.timers import RoundTrips

_MAX_REORDERING: Final = 20  # in quarters of a round trip
_REORDERING_LASTS: Final = 16  # recoveries, RFC 8985, 6.2


class Rack:
    """What has come last, and what is under way. Times are seconds."""

    __slots__ = (
        "_delivered", "_farthest", "_reordering", "_reordering_left", "_reordering_round", "_seen_reordering", "_trip",
        "_under_way",
    )  # fmt: skip

    def __init__(self) -> None:
        self._under_way: list[Flight] = []  # in the order of `_sent`
        self._delivered = (0.0, 0)  # of what left last of all that has come: RFC 8985's RACK.xmit_ts and RACK.end_seq
        self._trip = 0.0  # its round trip, RACK.rtt
        self._farthest = 0  # the end of what was delivered farthest on, RACK.fack
        self._reordering = 1  # quarters of the shortest round trip
        self._reordering_left = 0
        self._reordering_round = 0  # the offset from which on another duplicate widens the window again
        self._seen_reordering = False

    # What is under way.

    def add(self, flight: Flight) -> None:
        """A flight has left, was split off another, or proved not to be lost."""
        if not self._under_way or _sent(self._under_way[-1]) <= _sent(flight):
            self._under_way.append(flight)
        else:
            insort(self._under_way, flight, key=_sent)

    def remove(self, flight: Flight) -> None:
        """A flight that was under way has come, is lost, or is sent again."""
        i = 0 if self._under_way[0] is flight else bisect_left(self._under_way, _sent(flight), key=_sent)
        del self._under_way[i]

    # What has come.

    def delivered(self, flight: Flight, now: float, shortest: float) -> float | None:
        """A flight has come. Its round trip, if it is sure which try has come; `shortest` is the shortest one known."""
        trip = now - flight.at
        if flight.tries > 1:
            if trip < shortest:  # the answer is to an earlier try
                return None
            sure = None
        else:
            sure = trip
            self._seen_reordering = self._seen_reordering or flight.end < self._farthest
        self._farthest = max(self._farthest, flight.end)
        if _sent(flight) > self._delivered:
            self._delivered, self._trip = _sent(flight), trip
        return sure

    def all_came(self, flight: Flight, trip: float) -> None:
        """The only flight has come, which left once."""
        self._under_way.clear()
        self._farthest, self._delivered, self._trip = flight.end, _sent(flight), trip

    def came_twice(self, acknowledged: int, following: int) -> None:
        """What was sent again had been late, not lost: wait longer for such (step 4). Once for each round trip.

        All before offset `acknowledged` has come, and `following` was never sent.
        """
        if acknowledged >= self._reordering_round:
            self._reordering_round, self._seen_reordering = following, True
            self._reordering = min(self._reordering + 1, _MAX_REORDERING)
            self._reordering_left = _REORDERING_LASTS

    def recovered(self) -> None:
        """A loss was repaired."""
        if self._reordering_left:
            self._reordering_left -= 1
            self._reordering = self._reordering if self._reordering_left else 1

    # What has not.

    def overdue(self, now: float, trips: RoundTrips, *, is_certain: bool) -> tuple[list[Flight], float]:
        """The flights that are lost (step 5), and when to look for more, if nothing comes before.

        `is_certain`: a loss was found before, or enough has overtaken the others to mean one.
        """
        wait = self._trip + self._window(trips, is_certain=is_certain)
        lost: list[Flight] = []
        for flight in self._under_way:
            if _sent(flight) >= self._delivered:
                break
            if flight.at + wait > now:
                return lost, flight.at + wait
            lost.append(flight)
        return lost, inf

    def _window(self, trips: RoundTrips, *, is_certain: bool) -> float:
        """How long one packet may be overtaken by others."""
        if not self._seen_reordering and is_certain:
            return 0.0
        shortest = trips.shortest if trips.shortest < inf else trips.smoothed
        return min(self._reordering * shortest / 4, trips.smoothed)


def _sent(flight: Flight) -> tuple[float, int]:
    return flight.at, flight.end
