"""How long to wait for an acknowledgement: the retransmission timeout of RFC 6298, and the shortest round trip seen."""

from __future__ import annotations

from math import inf
from typing import Final

INITIAL_TIMEOUT: Final = 1.0  # seconds, RFC 6298 (2.1)
MIN_TIMEOUT: Final = 0.2  # as the kernel's TCP_RTO_MIN; RFC 6298 (2.4) says 1 s
MAX_TIMEOUT: Final = 120.0  # TCP_RTO_MAX
_WINDOW: Final = 300.0  # seconds that the shortest round trip is remembered: tcp_min_rtt_wlen
_GRANULARITY: Final = 0.001


class RoundTrips:
    """What is known of the time to the peer and back. All times are seconds."""

    __slots__ = ("_backoff", "_shortest_at", "shortest", "smoothed", "timeout", "variation")

    def __init__(self) -> None:
        self.smoothed: float = 0.0  # 0: nothing measured yet
        self.variation: float = 0.0
        self.shortest: float = inf
        self._shortest_at = 0.0
        self.timeout: float = INITIAL_TIMEOUT  # until what was sent and is not acknowledged counts as lost
        self._backoff = 0

    def sample(self, seconds: float, now: float) -> None:
        """Take in one measured round trip (RFC 6298, 2.2 and 2.3)."""
        if seconds < 1e-6:
            seconds = 1e-6
        if seconds <= self.shortest or now - self._shortest_at > _WINDOW:
            self.shortest, self._shortest_at = seconds, now
        if not self.smoothed:
            self.smoothed, self.variation = seconds, seconds / 2
        else:
            self.variation += (abs(self.smoothed - seconds) - self.variation) / 4
            self.smoothed += (seconds - self.smoothed) / 8
        self._set_timeout()

    @property
    def is_backed_off(self) -> bool:
        """A timeout has passed since the peer last acknowledged something new."""
        return self._backoff > 0

    def back_off(self) -> None:
        """A timeout passed in vain: the next is twice as long (RFC 6298, 5.5)."""
        self._backoff += 1
        self._set_timeout()

    def progress(self) -> None:
        """The peer acknowledged something new."""
        if self._backoff:
            self._backoff = 0
            self._set_timeout()

    def _set_timeout(self) -> None:
        timeout = self.smoothed + max(_GRANULARITY, 4 * self.variation) if self.smoothed else INITIAL_TIMEOUT
        if timeout < MIN_TIMEOUT:
            timeout = MIN_TIMEOUT
        if self._backoff:
            timeout *= 2.0 ** min(self._backoff, 16)
        self.timeout = timeout if timeout < MAX_TIMEOUT else MAX_TIMEOUT
