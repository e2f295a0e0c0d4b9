"""Which peers had sessions with the process before this one, and when each is to be greeted."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final

from wgpy.constants import REJECT_AFTER_TIME
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey

# Seconds between two greetings: a handshake takes about half of it, and 7,500 are done before a peer tries by itself.
INTERVAL: Final = 0.002


class Greetings:
    """The peers that had sessions under our key `owner`, and where they were.

    To a peer its session looks alive for REJECT_AFTER_TIME at most; who is configured later than that is not greeted.
    """

    def __init__(self, owner: PublicKey, endpoints: Mapping[PublicKey, Endpoint], now: float) -> None:
        self._owner = owner
        self._endpoints = dict(endpoints)
        self._until = now + REJECT_AFTER_TIME
        self._last = -inf

    def take(self, owner: PublicKey | None, peer: PublicKey, now: float) -> tuple[Endpoint, float] | None:
        """Where a peer was and when to greet it, once; None for one that is not to be."""
        if owner != self._owner or now >= self._until or peer not in self._endpoints:
            return None
        self._last = max(now, self._last + INTERVAL)
        return self._endpoints.pop(peer), self._last
