"""Is this device under load? The kernel's test (receive.c), told without a queue.

The kernel looks at the length of its handshake queue: 512 waiting, now or within the last second, is load. Here each
message is handled as it comes and what waits, waits in the sockets; so the queue is reckoned: every handshake message
that is read joins it, and it drains at the rate at which a fair part of one core handles them, which is higher under
load, when most are only answered by a cookie.
"""

from __future__ import annotations

from typing import Final

from wgpy.constants import UNDER_LOAD_STICKINESS

QUEUE_LIMIT: Final = 4096
QUEUE_UNDER_LOAD: Final = QUEUE_LIMIT // 8
SERVICE_RATE: Final = 2000.0  # a second, at some 100 us each
LOADED_RATE: Final = 8000.0  # the same at 40 us


class LoadMeter:
    """The reckoned handshake queue."""

    __slots__ = ("_last_at", "_queued", "_under_load_until")

    def __init__(self) -> None:
        self._queued = 0.0
        self._last_at = 0.0
        self._under_load_until = 0.0

    def arrived(self, now: float) -> bool:
        """Count one handshake message at `now` (seconds); whether it comes under load."""
        rate = LOADED_RATE if self.is_present(now) else SERVICE_RATE
        left = max(0.0, self._queued - max(0.0, now - self._last_at) * rate)
        self._queued = min(left + 1, QUEUE_LIMIT)
        self._last_at = now
        if self._queued >= QUEUE_UNDER_LOAD:
            self._under_load_until = now + UNDER_LOAD_STICKINESS
        return self.is_present(now)

    def is_present(self, now: float) -> bool:
        """Whether there is load, or was within the last second."""
        return now < self._under_load_until
