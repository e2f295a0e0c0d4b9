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
    """The peers that had sessions under our key `owner`: where each was, and when its last session began.

    To a peer a session looks alive for REJECT_AFTER_TIME (paper, 6.2). A peer whose session is older knows that there
    is none, and begins one itself when it has something to send: it is not greeted, because it may be gone for good.
    """

    def __init__(self, owner: PublicKey, sessions: Mapping[PublicKey, tuple[Endpoint, float]]) -> None:
        self._owner = owner
        self._sessions = dict(sessions)
        self._last = -inf

    def take(self, owner: PublicKey | None, peer: PublicKey, now: float) -> tuple[Endpoint, float] | None:
        """Where a peer was and when to greet it, once; None for one that is not to be."""
        if owner != self._owner or peer not in self._sessions:
            return None
        endpoint, began = self._sessions[peer]
        if not may_look_alive(began, now):
            return None
        del self._sessions[peer]
        self._last = max(now, self._last + INTERVAL)
        return endpoint, self._last


def may_look_alive(began: float, now: float) -> bool:
    """Whether a session of that age may still be used. One from the future is of before a reboot."""
    return 0 <= now - began < REJECT_AFTER_TIME
