"""After a restart: which peers still believe in a session, and when to begin a handshake with each."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final

from wgpy.constants import REJECT_AFTER_TIME
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey

# Seconds between two handshakes: one takes about half of that, and 7,500 are begun before a peer would itself.
INTERVAL: Final = 0.002


class Resumption:
    """The peers that had sessions under our key `owner`: where each was, and when its last session began, in seconds.

    To a peer its session looks alive for REJECT_AFTER_TIME (paper, 6.2). A peer whose session is older begins a new one
    itself when it has something to send. We begin none with it, because it may be gone for good.
    """

    def __init__(self, owner: PublicKey, sessions: Mapping[PublicKey, tuple[Endpoint, float]]) -> None:
        self._owner = owner
        self._sessions = dict(sessions)
        self._last = -inf

    def take(self, owner: PublicKey | None, peer: PublicKey, now: float) -> tuple[Endpoint, float, float] | None:
        """Where a peer was, when its session began, and when to begin a handshake with it.

        None if there is no reason to begin one, or not again.
        """
        if owner != self._owner or peer not in self._sessions:
            return None
        endpoint, began = self._sessions[peer]
        if not may_look_alive(began, now):
            return None
        del self._sessions[peer]
        self._last = max(now, self._last + INTERVAL)
        return endpoint, began, self._last


def may_look_alive(began: float, now: float) -> bool:
    """Whether a session that began then may still be used; one that began in the future is from before a reboot."""
    return 0 <= now - began < REJECT_AFTER_TIME
