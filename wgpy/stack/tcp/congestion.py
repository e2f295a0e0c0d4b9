"""How much may be under way: CUBIC (RFC 9438) after a slow start with HyStart++ (RFC 9406). Windows are bytes."""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

INITIAL_SEGMENTS: Final = 10  # RFC 6928
_BETA: Final = 0.7
_C: Final = 0.4  # segments per cubed second
_RENO_GAIN: Final = 3 * (1 - _BETA) / (1 + _BETA)  # RFC 9438, 4.3

_MIN_DELAY_RISE: Final = 0.004  # seconds, RFC 9406, 4.3
_MAX_DELAY_RISE: Final = 0.016
_SAMPLES: Final = 8
_GROWTH_DIVISOR: Final = 4
_CAUTIOUS_ROUNDS: Final = 5


class Saved(NamedTuple):
    """The window before a reduction that may prove to have been in vain."""

    window: float
    threshold: float
    most: float


class Congestion:
    """The congestion window of one connection, `window`, and the threshold below which it doubles every round trip."""

    __slots__ = (
        "_cautious_rounds", "_cubic_root", "_epoch", "_last_shortest", "_most", "_reno", "_round_end", "_samples",
        "_shortest", "segment", "threshold", "window",
    )  # fmt: skip

    def __init__(self, segment: int) -> None:
        """`segment` is the payload of a full segment, in bytes."""
        self.segment: int = segment
        self.window: float = float(INITIAL_SEGMENTS * segment)
        self.threshold: float = inf
        self._most = 0.0
        self._epoch: float | None = None
        self._cubic_root = 0.0
        self._reno = 0.0
        self._round_end = 0
        self._shortest = self._last_shortest = inf
        self._samples = 0
        self._cautious_rounds = 0  # left of HyStart++'s conservative slow start; 0: none has begun

    def acknowledged(self, count: int, upto: int, sent: int, now: float, trip: float | None, smoothed: float) -> None:
        """`count` bytes were acknowledged while the window was in use, all before offset `upto` of `sent` in all.

        `trip` is the round trip just measured, if one was; `smoothed` their average. Seconds.
        """
        if self.window < self.threshold:
            self._slow_start(count, upto, sent, trip)
            return
        if self._epoch is None:
            self._epoch, self._reno = now, self.window
            self._cubic_root = (max(0.0, self._most - self.window) / self.segment / _C) ** (1 / 3)
            self._most = max(self._most, self.window)
        elapsed = now - self._epoch + smoothed
        target = self._most + _C * (elapsed - self._cubic_root) ** 3 * self.segment
        gain = _RENO_GAIN if self._reno < self._most else 1.0
        self._reno += gain * self.segment * count / self.window
        target = min(max(target, self.window), 1.5 * self.window)
        self.window += (target - self.window) * min(1.0, count / self.window)
        self.window = max(self.window, self._reno)

    def _slow_start(self, count: int, upto: int, sent: int, trip: float | None) -> None:
        if upto > self._round_end:
            self._next_round(sent)
        if trip is not None:
            self._shortest = min(self._shortest, trip)
            self._samples += 1
        known = self._samples >= _SAMPLES and self._last_shortest < inf
        if self._cautious_rounds:
            self.window += count / _GROWTH_DIVISOR
            if known and self._shortest < self._last_shortest:  # the delay was no queue of ours
                self._cautious_rounds = 0
            return
        self.window = min(self.window + count, self.threshold)
        rise = max(_MIN_DELAY_RISE, min(self._last_shortest / 8, _MAX_DELAY_RISE))
        if known and self._shortest >= self._last_shortest + rise:
            self._cautious_rounds, self._last_shortest = _CAUTIOUS_ROUNDS, self._shortest

    def _next_round(self, sent: int) -> None:
        self._round_end = sent
        if self._cautious_rounds:
            self._cautious_rounds -= 1
            if not self._cautious_rounds:
                self.threshold = self.window
                return
        elif self._samples:
            self._last_shortest = self._shortest
        self._shortest, self._samples = inf, 0

    def reduce(self) -> Saved:
        """Something was lost, or marked: once for each round trip (RFC 9438, 4.6 and 4.7)."""
        saved = Saved(self.window, self.threshold, self._most)
        is_shrinking = self.window < self._most
        self._most = self.window * (1 + _BETA) / 2 if is_shrinking else self.window
        self._epoch = None
        self.threshold = self.window = max(_BETA * self.window, 2.0 * self.segment)
        return saved

    def collapse(self, in_flight: int) -> Saved:
        """A timeout passed: begin again from one segment (RFC 5681, 3.1)."""
        saved = Saved(self.window, self.threshold, self._most)
        self._most, self._epoch = self.window, None
        self.threshold = max(_BETA * max(in_flight, self.segment), 2.0 * self.segment)
        self.window = float(self.segment)
        return saved

    def restore(self, saved: Saved) -> None:
        """What seemed lost was only late: take the reduction back (RFC 4015, RFC 9438, 4.9)."""
        self.window = max(self.window, saved.window)
        self.threshold = max(self.threshold, saved.threshold)
        self._most, self._epoch = saved.most, None

    def idle(self) -> None:
        """Nothing was under way for a timeout: what was learnt of the path is stale (RFC 5681, 4.1)."""
        self.window = min(self.window, float(INITIAL_SEGMENTS * self.segment))
        self._epoch = None
