"""The sending half of a connection: what was written, what of it is under way, and what was lost.

Loss is detected by time with the peer's SACK (RFC 2018, 6675; `rack`), and that of the last segments by a probe
(RFC 8985, 7); without SACK by three duplicate acknowledgements (RFC 6582). What leaves together is one `Flight`, so the
work is per burst, not per packet. Offsets count our sequence numbers from our SYN, which is 0.
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf
from typing import Final

from wgpy.stack.tcp.buffer import SendBuffer
from wgpy.stack.tcp.congestion import Congestion
from wgpy.stack.tcp.flights import Flight, Leaving
from wgpy.stack.tcp.rack import Rack
from wgpy.stack.tcp.repetitions import Repetitions, tells_a_duplicate
from wgpy.stack.tcp.timers import RoundTrips

MAX_FLIGHTS: Final = 4096  # ranges that are remembered; what a peer's SACK would split further is not split
_DUPLICATES: Final = 3  # acknowledgements that mean a loss, where there is no SACK, or no reordering was seen
_PROBE_DELAY: Final = 0.2  # seconds a peer may delay an acknowledgement, RFC 8985, 7.2
_LEAST_PROBE: Final = 0.01


class Sender:
    """What goes to the peer. `next` is the first offset never sent, `acknowledged` the first not acknowledged."""

    __slots__ = (
        "_flights", "_is_after_timeout", "_limited", "_lost_from", "_probe_end", "_probe_is_repeated", "_rack",
        "_recovery_end", "_repetitions", "_window_told", "acknowledged", "buffer", "congestion", "duplicates", "end",
        "fin_wanted", "has_sack", "idle_since", "in_flight", "loss_at", "lost", "max_window", "next", "probe_at",
        "sacked", "segment", "timeout_at", "trips", "window",
    )  # fmt: skip

    def __init__(self, segment: int) -> None:
        """`segment` is the payload of a full segment, in bytes."""
        self.segment: int = segment
        self.buffer: SendBuffer = SendBuffer()
        self.congestion: Congestion = Congestion(segment)
        self.trips: RoundTrips = RoundTrips()
        self.fin_wanted: bool = False
        self.end: int = self.buffer.end  # behind the last offset there is to send
        self.acknowledged: int = 0
        self.next: int = 0
        self.window: int = 1  # bytes that the peer takes from `acknowledged` on
        self.max_window: int = 1
        self._window_told = (-1, -1)  # by the segment of these: its offset, and what it acknowledged
        self.has_sack: bool = False
        self._flights: list[Flight] = []  # from `acknowledged` to `next`, in order and without gaps
        self.in_flight: int = 0  # bytes of each kind of them
        self.sacked: int = 0
        self.lost: int = 0
        self._lost_from = 0  # nothing before this offset is lost, so that nobody looks for it there again and again
        self.duplicates: int = 0
        self.timeout_at: float = inf
        self.loss_at: float = inf
        self.probe_at: float = inf
        self.idle_since: float = 0.0
        self._limited = False  # by the congestion window, since the last acknowledgement
        self._recovery_end = 0  # `next` when the loss was found; 0: there is none
        self._is_after_timeout = False  # the loss was found by a timeout
        self._rack = Rack()
        self._repetitions = Repetitions()
        self._probe_end, self._probe_is_repeated = 0, False

    def begin(self, segment: int) -> None:
        """The peer has said what it takes."""
        self.segment = segment
        self.congestion = Congestion(segment)

    # From the application.

    def write(self, data: bytes) -> None:
        """Send these bytes after all that was written."""
        self.buffer.append(data)
        self.end += len(data)

    def finish(self) -> None:
        """A FIN follows all that was written."""
        self.fin_wanted = True
        self.end += 1

    # What may leave.

    @property
    def is_recovering(self) -> bool:
        return self._recovery_end > 0

    def leaving(self, most: int, *, nodelay: bool) -> Leaving | None:
        """The next range that may leave, of `most` bytes at most: what was lost first.

        When a loss has been found, one segment leaves even if too much is under way (RFC 6675, 5, step 4.3).
        """
        room = int(self.congestion.window) - self.in_flight
        if self.lost and (room >= self.segment or not self.in_flight or self._repetitions.has_none):
            return self._lost_range(min(most, max(room, self.segment)))
        ready = self.end - self.next
        if ready <= 0:
            return None
        allowed = self.acknowledged + self.window - self.next
        if nodelay and ready <= self.segment and ready <= room and ready <= allowed and ready <= most:
            return Leaving(self.next, self.next + ready, False)
        if room < min(ready, allowed, self.segment):
            self._limited = self._limited or allowed > 0
            return None
        count = min(ready, allowed, room, most)
        if count <= 0:
            return None
        waits = not nodelay and self.next > self.acknowledged and not self.fin_wanted  # Nagle (RFC 9293, 3.7.4)
        if count >= self.segment:
            if count < ready or waits:
                count -= count % self.segment
        elif waits or (count < ready and count < self.max_window // 2):  # silly window (RFC 9293, 3.8.6.2.1)
            return None
        return Leaving(self.next, self.next + count, False)

    def _lost_range(self, most: int) -> Leaving:
        i = max(0, self._index(self._lost_from))
        while not self._flights[i].is_lost:
            i += 1
        start = end = self._lost_from = self._flights[i].start
        while i < len(self._flights) and self._flights[i].is_lost and end - start < most:
            end = min(self._flights[i].end, start + most)
            i += 1
        return Leaving(start, end, True)

    def left(self, leaving: Leaving, now: float) -> None:
        """A range has left at `now`, seconds."""
        start, end, is_repeated = leaving
        if is_repeated:
            self._again(start, end, now)
        else:
            flight = Flight(start, end, now)
            self._flights.append(flight)
            self._launch(flight)
            self.next = end
        if self.timeout_at == inf:
            self.timeout_at = now + self.trips.timeout
        self._arm_probe(now)

    def _again(self, start: int, end: int, now: float) -> None:
        i = self._index(start)
        if self._flights[i].start < start:
            self._split(i, start)
            i += 1
        j, tries = i, 0
        while j < len(self._flights) and self._flights[j].start < end:
            flight = self._flights[j]
            if flight.end > end:
                self._split(j, end)
            tries = max(tries, flight.tries)
            if flight.is_lost:
                self.lost -= flight.end - flight.start
            elif not flight.is_sacked:
                self._land(flight)
            j += 1
        flight = Flight(start, end, now, tries + 1)
        self._flights[i:j] = [flight]
        self._launch(flight)
        self._repetitions.left(end - start, now)

    def _launch(self, flight: Flight) -> None:
        """It is under way from now on."""
        self.in_flight += flight.end - flight.start
        self._rack.add(flight)

    def _land(self, flight: Flight) -> None:
        """It is not under way any more."""
        self.in_flight -= flight.end - flight.start
        self._rack.remove(flight)

    def _split(self, i: int, at: int) -> None:
        """Make two flights of flight i; the second begins at offset `at`."""
        rest = self._flights[i].split(at)
        self._flights.insert(i + 1, rest)
        if not rest.is_sacked and not rest.is_lost:
            self._rack.add(rest)

    def _index(self, offset: int) -> int:
        """Which flight holds an offset."""
        return bisect_right(self._flights, offset, key=_start) - 1

    # What the peer says.

    def update_window(self, start: int, upto: int, window: int) -> bool:
        """A segment from the peer's offset `start` tells a window. Whether it opens; only the newest is believed.

        RFC 9293, 3.10.7.4: SND.WL1 and SND.WL2.
        """
        if (start, upto) < self._window_told:
            return False
        opens = window > self.window
        self._window_told = start, upto
        self.window = window
        self.max_window = max(self.max_window, window)
        return opens

    def acknowledge(
        self, upto: int, sacks: list[tuple[int, int]], now: float, *, is_duplicate: bool, echoed: int | None = None
    ) -> bool:
        """Everything before `upto` has come, and the ranges of `sacks`. Whether anything of that was new.

        `is_duplicate`: the segment carried nothing else. Both lie within what was sent. `echoed`: the milliseconds of
        `now` at which the segment left that this one answers, as its timestamp says.
        """
        count = upto - self.acknowledged
        trip: float | None = None
        if count > 0:
            trip = self._take(upto, now)
            self.trips.progress()
            self.duplicates = 0
            self.buffer.release(upto)
        elif is_duplicate and self.next > self.acknowledged:
            self.duplicates += 1
        before = self.sacked
        if self.has_sack:
            if sacks and tells_a_duplicate(sacks, self.acknowledged):
                self._came_twice(*sacks.pop(0))
            for start, end in sorted(sacks):
                if start >= self.acknowledged:
                    trip = self._sack(start, min(end, self.next), now) or trip
        news = self.sacked - before + count
        if trip is not None:
            self.trips.sample(trip, now)
        elif count > 0 and echoed is not None:  # of what was repeated, the timestamp alone tells (RFC 7323, 4.1)
            # Or the acknowledgement of the original was lost: so no more is believed than twice the timeout.
            self.trips.sample(min(now - echoed / 1000, 2 * self.trips.timeout), now)
        if self._recovery_end and not self.lost and self._repetitions.has_none:
            self._undo()  # it has come before it left again
        elif count > 0 and self._repetitions.answers_original(echoed):
            self._was_late()
        if self._recovery_end and upto >= self._recovery_end:
            self._recovery_end, self._is_after_timeout = 0, False
            self._rack.recovered()
        elif self._recovery_end and not self.has_sack and count > 0:
            self._lose(self.acknowledged, min(self.acknowledged + self.segment, self.next))  # RFC 6582, a partial one
        if self._probe_end and upto >= self._probe_end:
            if self._probe_is_repeated and not self._recovery_end and upto > self._probe_end:
                self._reduce()  # the probe repaired a loss (RFC 8985, 7.4.2)
            self._probe_end = 0
        if (
            count > 0
            and self._limited
            and (not self._recovery_end or self.congestion.window < self.congestion.threshold)
        ):
            self.congestion.acknowledged(max(0, news), upto, self.next, now, trip, self.trips.smoothed)
        if count > 0:
            self._limited = False
            self.timeout_at = now + self.trips.timeout if self.next > self.acknowledged else inf
            if self.next == self.acknowledged:
                self.idle_since = now
        if news > 0:
            self.detect_loss(now)
            self._arm_probe(now)
        elif not self.has_sack and self.duplicates == _DUPLICATES and not self._recovery_end:
            self._recover()
            self._lose(self.acknowledged, min(self.acknowledged + self.segment, self.next))
        return news > 0

    @property
    def is_calm(self) -> bool:
        """What is under way left together, and once, and no loss is being repaired.

        One that was repaired may still turn out to be none: that, a duplicate tells, which `acknowledge` is given.
        """
        flights = self._flights
        if len(flights) > 1 or (flights and flights[0].tries > 1):
            return False
        return not (self.sacked or self.lost or self._recovery_end or self._probe_end)

    def all_came(self, now: float) -> None:
        """Do what `acknowledge` does, in fewer steps, when all that is under way was acknowledged and all `is_calm`."""
        flight = self._flights.pop()
        trip, count, end = now - flight.at, flight.end - self.acknowledged, flight.end
        self.acknowledged = end
        self._rack.all_came(flight, trip)
        self.in_flight = self.duplicates = 0
        self.buffer.release(end)
        self.trips.progress()
        self.trips.sample(trip, now)
        if self._limited:
            self.congestion.acknowledged(count, end, end, now, trip, self.trips.smoothed)
            self._limited = False
        self.timeout_at = self.loss_at = self.probe_at = inf
        self.idle_since = now

    def _take(self, upto: int, now: float) -> float | None:
        """Forget the flights before `upto`; returns the round trip of the one that left last, if it is known."""
        trip: float | None = None
        i = 0
        while i < len(self._flights) and self._flights[i].start < upto:
            flight = self._flights[i]
            if flight.end > upto:
                self._split(i, upto)
            if flight.is_sacked:
                self.sacked -= flight.end - flight.start
            else:
                trip = self._deliver(flight, now) or trip
            i += 1
        del self._flights[:i]
        self.acknowledged = upto
        return trip

    def _deliver(self, flight: Flight, now: float) -> float | None:
        """A flight has come. Its round trip, if it is sure."""
        if flight.is_lost:
            flight.is_lost = False
            self.lost -= flight.end - flight.start
        else:
            self._land(flight)
        return self._rack.delivered(flight, now, self.trips.shortest)

    def _sack(self, start: int, end: int, now: float) -> float | None:
        trip: float | None = None
        i = self._index(start)
        while i < len(self._flights) and self._flights[i].start < end:
            flight = self._flights[i]
            if flight.is_sacked:
                i += 1
                continue
            if flight.start < start or flight.end > end:
                if len(self._flights) >= MAX_FLIGHTS:
                    i += 1
                    continue
                if flight.end > end:
                    self._split(i, end)
                if flight.start < start:
                    self._split(i, start)
                    i += 1
                    flight = self._flights[i]
            trip = self._deliver(flight, now) or trip
            flight.is_sacked = True
            self.sacked += flight.end - flight.start
            i = self._join(i)
        return trip

    def _join(self, i: int) -> int:
        """Make one of flight i, which was SACKed, and SACKed neighbours; returns which follows."""
        flights, flight = self._flights, self._flights[i]
        if i + 1 < len(flights) and flights[i + 1].is_sacked:
            flight.end = flights.pop(i + 1).end
        if i and flights[i - 1].is_sacked:
            flights[i - 1].end = flight.end
            del flights[i]
            return i
        return i + 1

    def _came_twice(self, start: int, end: int) -> None:
        """What was repeated was late, not lost."""
        if self._probe_end:
            self._probe_is_repeated = False  # nothing was lost: the probe itself was in vain
        else:
            self._rack.came_twice(self.acknowledged, self.next)
        if self._repetitions.came_twice(start, end):
            self._undo()

    def _was_late(self) -> None:
        """An original has come after its repetition had left: after a timeout, nothing else has been lost either."""
        if self._is_after_timeout:
            for flight in self._flights:
                if flight.is_lost:
                    flight.is_lost = False
                    self.lost -= flight.end - flight.start
                    self._launch(flight)
        elif any(flight.is_lost or (flight.tries > 1 and not flight.is_sacked) for flight in self._flights):
            return  # a later acknowledgement will tell
        self._undo()

    def _undo(self) -> None:
        """Take the reduction back."""
        assert self._repetitions.saved is not None
        self.congestion.restore(self._repetitions.saved)
        self._repetitions.begin(None, 0)
        if not self.lost:
            self._recovery_end, self._is_after_timeout = 0, False

    # Losses.

    def detect_loss(self, now: float) -> None:
        """What left long enough before something that has come is lost (RFC 8985, 6.2, step 5)."""
        self.loss_at = inf
        if not self.has_sack or not self.in_flight or not (self.sacked or self._recovery_end):
            return
        is_certain = self._recovery_end > 0 or self.sacked >= _DUPLICATES * self.segment
        lost, self.loss_at = self._rack.overdue(now, self.trips, is_certain=is_certain)
        for flight in lost:
            self._mark_lost(flight)
        if self.lost and not self._recovery_end:
            self._recover()

    def _mark_lost(self, flight: Flight) -> None:
        self._land(flight)
        flight.is_lost = True
        self.lost += flight.end - flight.start
        self._lost_from = min(self._lost_from, flight.start)

    def _lose(self, start: int, end: int) -> None:
        """A range is lost, whatever is known of it."""
        i = self._index(start)
        flight = self._flights[i]
        if flight.is_lost or flight.is_sacked:
            return
        if flight.start < start:
            self._split(i, start)
            i += 1
        if self._flights[i].end > end:
            self._split(i, end)
        self._mark_lost(self._flights[i])

    def _recover(self) -> None:
        self._recovery_end = self.next
        self._reduce()

    def _reduce(self) -> None:
        self._repetitions.begin(self.congestion.reduce(), self.acknowledged)

    def marked(self) -> bool:
        """The path marks our packets (ECE): reduce, once for each window (RFC 3168, 6.1.2). Whether that was done."""
        if self._recovery_end:
            return False
        self._recovery_end = self.next
        self.congestion.reduce()
        self._repetitions.begin(None, 0)  # this reduction is never in vain
        return True

    def timed_out(self, now: float) -> None:
        """Nothing came for a timeout: all that is under way is lost (RFC 6298, 5.4 to 5.6)."""
        is_first = not self.trips.is_backed_off
        self.trips.back_off()
        if not self.is_recovering or (self._is_after_timeout and is_first):
            saved = self.congestion.collapse(self.next - self.acknowledged)
            self._repetitions.begin(saved, self.acknowledged)
        self.congestion.window = float(self.segment)  # of several timeouts, only the first lowers the threshold
        has_forgotten = bool(self._flights) and self._flights[0].is_sacked  # the peer has: RFC 2018, 8
        for flight in self._flights:
            if flight.is_sacked and has_forgotten:
                flight.is_sacked = False
                self.sacked -= flight.end - flight.start
                self._launch(flight)
            if not flight.is_lost and not flight.is_sacked:
                self._mark_lost(flight)
        self._recovery_end, self._is_after_timeout = self.next, True
        self.duplicates = 0
        self.loss_at = self.probe_at = inf
        self.timeout_at = now + self.trips.timeout

    def probe(self, now: float) -> Leaving | None:
        """The last of what left may be lost, with nothing behind it to tell: send something (RFC 8985, 7.3)."""
        self.probe_at = inf
        if not self._flights or self._recovery_end or self._probe_end:
            return None
        self.timeout_at = now + self.trips.timeout
        allowed = min(self.end, self.acknowledged + self.window) - self.next
        self._probe_end = self.next
        if allowed > 0:
            self._probe_is_repeated = False
            return Leaving(self.next, self.next + min(allowed, self.segment), False)
        last = self._flights[-1]
        if last.is_sacked:
            return None
        self._probe_is_repeated = True
        return Leaving(max(last.start, last.end - self.segment), last.end, True)

    def is_unanswered(self, leaving: Leaving) -> bool:
        """Whether nothing has come since that acknowledges a range which was to be repeated, or a part of it."""
        if leaving.start < self.acknowledged:
            return False
        flights = self._flights[self._index(leaving.start) :]
        return not any(flight.is_sacked and flight.start < leaving.end for flight in flights)

    def _arm_probe(self, now: float) -> None:
        self.probe_at = inf
        if not self.has_sack or self._recovery_end or self._probe_end or self.sacked or not self.in_flight:
            return
        if not self.trips.smoothed:
            return
        wait = max(2 * self.trips.smoothed, _LEAST_PROBE)
        if self.in_flight <= self.segment:
            wait += _PROBE_DELAY
        if now + wait < self.timeout_at:
            self.probe_at = now + wait

    def lose_longer(self, now: float) -> None:
        """What is under way and longer than a segment is now is lost, but for no congestion."""
        for flight in self._flights:
            if not flight.is_sacked and not flight.is_lost and flight.end - flight.start > self.segment:
                self._mark_lost(flight)
        self.timeout_at = now + self.trips.timeout if self._flights else inf


def _start(flight: Flight) -> int:
    return flight.start
