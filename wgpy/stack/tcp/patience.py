"""How long a connection waits when it hears nothing: for a window, for a sign of life, for an acknowledgement."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

SYN_RETRIES: Final = 6  # tcp_syn_retries: 127 s in all
SYN_ACK_RETRIES: Final = 5  # tcp_synack_retries
RETRIES: Final = 15  # tcp_retries2


@dataclass(slots=True)
class Settings:
    """What an application may choose of a connection. Times are seconds."""

    nodelay: bool = True  # small writes leave at once (RFC 9293, 3.7.4), as asyncio's sockets
    keepalive: float | None = None  # of silence, after which the peer is asked whether it is there
    keepalive_interval: float = 75.0
    keepalive_count: int = 9
    user_timeout: float | None = None  # for which written bytes may stay unacknowledged (RFC 9293, 3.8.3)


def retries(*, is_opening: bool, is_passive: bool) -> int:
    """How many timeouts in a row a connection bears, as the kernel."""
    if not is_opening:
        return RETRIES
    return SYN_ACK_RETRIES if is_passive else SYN_RETRIES


class Patience:
    """Three clocks. `probe_wanted`: the peer is to be asked something that it must answer."""

    __slots__ = ("_unanswered", "fails_at", "keepalive_at", "persist_at", "probe_wanted", "settings")

    fails_at: float
    persist_at: float
    keepalive_at: float

    def __init__(self, settings: Settings) -> None:
        self.settings: Settings = settings
        self.probe_wanted: bool = False
        self._unanswered = 0  # keepalives
        self.fails_at = self.persist_at = self.keepalive_at = inf

    def stop(self) -> None:
        """Nothing is waited for any more."""
        self.fails_at = self.persist_at = self.keepalive_at = inf

    def heard(self, now: float) -> None:
        """The peer is there. Also called when the settings have changed."""
        self._unanswered = 0
        self.keepalive_at = inf if self.settings.keepalive is None else now + self.settings.keepalive

    def sent(self, now: float) -> None:
        """Something has left that the peer must acknowledge."""
        if self.settings.user_timeout is not None and self.fails_at == inf:
            self.fails_at = now + self.settings.user_timeout

    def wait_for_window(self, now: float, timeout: float) -> None:
        """The peer's window holds back what there is to send: ask for it after `timeout` seconds."""
        if self.persist_at == inf:
            self.persist_at = now + timeout

    def ask_for_window(self, now: float, timeout: float) -> None:
        """Ask now, and again after `timeout` seconds, for as long as it takes (RFC 9293, 3.8.6.1)."""
        self.probe_wanted = True
        self.persist_at = now + timeout
        self.sent(now)

    def ask_for_life(self, now: float, *, is_needed: bool) -> bool:
        """A keepalive is due; not `is_needed` while something else is under way. False: too many were not answered."""
        if self._unanswered >= self.settings.keepalive_count:
            return False
        if is_needed:
            self.probe_wanted = True
            self._unanswered += 1
        self.keepalive_at = now + self.settings.keepalive_interval
        return True
