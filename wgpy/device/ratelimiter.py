"""Limits how often one source may cause expensive work: a token bucket for each (kernel ratelimiter.c)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

# Tokens are nanoseconds, as in the kernel: whole numbers, so that waiting exactly long enough is long enough.
_COST: Final = 1_000_000_000 // 20
_MAX_TOKENS: Final = 5 * _COST
_IDLE: Final = 1_000_000_000


class RateLimiter:
    """Allows one source 20 requests a second, and 5 at once.

    A source is an IPv4 address or an IPv6 /64. At most `max_entries` sources are remembered, and requests of others are
    refused then; a source is forgotten after it was idle for a second.
    """

    def __init__(self, max_entries: int = 65536) -> None:
        self._max_entries = max_entries
        self._buckets: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # tokens and when; the longest idle first

    def allow(self, source: bytes | memoryview, now: float) -> bool:
        """Whether `source`, an address of 4 or 16 bytes, may make one more request at `now` (seconds)."""
        key, at, buckets = bytes(source[:8]), round(now * 1e9), self._buckets
        self._collect(at)
        bucket = buckets.get(key)
        if bucket is None:
            if len(buckets) >= self._max_entries:
                return False
            buckets[key] = (_MAX_TOKENS - _COST, at)
            return True
        tokens, last = bucket
        tokens = min(_MAX_TOKENS, tokens + at - last)
        allowed = tokens >= _COST
        buckets[key] = (tokens - _COST if allowed else tokens, at)
        buckets.move_to_end(key)
        return allowed

    def _collect(self, at: int) -> None:
        """Forget up to two idle sources. Each request adds at most one, so they are removed faster than added."""
        for _ in range(2):
            oldest = next(iter(self._buckets.values()), None)
            if oldest is None or at - oldest[1] <= _IDLE:
                return
            self._buckets.popitem(last=False)
