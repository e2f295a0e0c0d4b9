"""The five timers of a peer: a table of deadlines with the names of the kernel's timers.c.

Hooks are called when something has happened, and move deadlines; where one stands for several of the kernel's, it says
so. `pop_due` returns the timer that fires; the Peer does what it stands for. Deadlines are seconds of CLOCK_BOOTTIME;
`NEVER` means that a timer is not pending.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from wgpy.constants import (
    KEEPALIVE_TIMEOUT,
    REKEY_TIMEOUT,
    RETRANSMIT_JITTER,
    ZERO_KEY_MATERIAL_AFTER,
)

NEVER: Final = math.inf


class Timer(Enum):
    """The timers (timers.c, top comment)."""

    RETRANSMIT_HANDSHAKE = auto()  # no response to an initiation for REKEY_TIMEOUT + jitter
    SEND_KEEPALIVE = auto()  # data was received and nothing sent back for KEEPALIVE_TIMEOUT
    NEW_HANDSHAKE = auto()  # data was sent and nothing came back for KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + jitter
    ZERO_KEY_MATERIAL = auto()  # a session's keys are 3 * REJECT_AFTER_TIME old; in the kernel the newest's
    PERSISTENT_KEEPALIVE = auto()  # nothing authenticated passed either way for the configured interval


class Timers:
    """One peer's deadlines and the flags that go with them.

    `random(n)` returns n unpredictable bytes, for the jitter of up to a third of a second (paper, 6.1); it is drawn
    again after each timer that it delayed. While `running` is False (interface down), no hook arms a timer.
    """

    __slots__ = (
        "awaiting_since",
        "data_sent_at",
        "handshake_attempts",
        "jitter",
        "need_another_keepalive",
        "new_handshake_at",
        "persistent_keepalive",
        "persistent_keepalive_at",
        "random",
        "retransmit_handshake_at",
        "running",
        "send_keepalive_at",
        "sent_lastminute_handshake",
        "zero_key_material_at",
    )

    running: bool
    retransmit_handshake_at: float
    send_keepalive_at: float
    new_handshake_at: float
    zero_key_material_at: float
    persistent_keepalive_at: float
    awaiting_since: float
    data_sent_at: float
    handshake_attempts: int
    need_another_keepalive: bool
    sent_lastminute_handshake: bool

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self.random: Callable[[int], bytes] = random
        self.persistent_keepalive: int = 0
        self.jitter: float = 0.0
        self.stop()

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        """Cancel all timers; none is armed until `start`."""
        self.running = False
        self.retransmit_handshake_at = NEVER
        self.send_keepalive_at = NEVER
        self.new_handshake_at = NEVER
        self.zero_key_material_at = NEVER
        self.persistent_keepalive_at = NEVER
        self.handshake_attempts = 0
        self.need_another_keepalive = False
        self.sent_lastminute_handshake = False
        self.awaiting_since = self.data_sent_at = NEVER

    # Hooks. Each docstring says when to call it.

    # The next two include the kernel's any_authenticated_packet_traversal, which always goes with either of them.

    def sent(self, now: float, *, data: bool) -> None:
        """When an authenticated message is sent: data, keepalive, initiation, response.

        The kernel's any_authenticated_packet_sent and, with `data`, data_sent: one packet at least is no keepalive.
        """
        self.send_keepalive_at = NEVER
        if self.persistent_keepalive and self.running:
            self.persistent_keepalive_at = now + self.persistent_keepalive
        if data:
            if self.new_handshake_at == NEVER and self.running:
                self.new_handshake_at = now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + (self.jitter or self._draw_jitter())
                self.awaiting_since = now
            self.data_sent_at = now

    def data_not_sent(self) -> None:
        """After the data of the last `sent` turned out not to have been sent."""
        if self.awaiting_since == self.data_sent_at:
            self.new_handshake_at = NEVER

    def received(self, now: float, *, data: int) -> None:
        """After authenticated messages were received: data, keepalive, initiation, response.

        The kernel's any_authenticated_packet_received, and its data_received for each of `data` packets that are no
        keepalives: the second finds the first's keepalive pending.
        """
        self.new_handshake_at = NEVER
        if self.persistent_keepalive and self.running:
            self.persistent_keepalive_at = now + self.persistent_keepalive
        if data:
            if self.send_keepalive_at != NEVER:
                self.need_another_keepalive = True
            elif self.running:
                self.send_keepalive_at = now + KEEPALIVE_TIMEOUT
                if data > 1:
                    self.need_another_keepalive = True

    def persistent_keepalive_wanted(self, now: float) -> None:
        """After a persistent keepalive was turned on, or the interface came up or got another key: one is due now."""
        if self.running:
            self.persistent_keepalive_at = now

    def handshake_wanted(self, now: float) -> None:
        """After the peer was given another endpoint: an initiation is due at once.

        It does not count as one more attempt, and neither does it start their number anew: however often the endpoint
        changes, the peer is given up after MAX_HANDSHAKE_RETRIES.
        """
        if self.running and self.retransmit_handshake_at > now:
            attempts = self.handshake_attempts if self.retransmit_handshake_at < NEVER else 0
            self.handshake_attempts = attempts - 1  # the retransmission adds it again
            self.retransmit_handshake_at = now

    def handshake_initiated(self, now: float) -> None:
        """After an initiation was sent."""
        if self.running:
            self.retransmit_handshake_at = now + REKEY_TIMEOUT + (self.jitter or self._draw_jitter())

    def handshake_complete(self) -> None:
        """After a response was consumed, or the first data came under a responder's new key."""
        self.retransmit_handshake_at = NEVER
        self.handshake_attempts = 0
        self.sent_lastminute_handshake = False

    def session_derived(self, oldest: float) -> None:
        """After keys were derived or erased; `oldest` is when the oldest that are left were derived."""
        if self.running:
            self.zero_key_material_at = oldest + ZERO_KEY_MATERIAL_AFTER

    def handshake_abandoned(self, now: float) -> None:
        """After the last attempt had no answer; the keys there are expire at their time."""
        self.send_keepalive_at = NEVER
        if self.zero_key_material_at == NEVER and self.running:
            self.zero_key_material_at = now + ZERO_KEY_MATERIAL_AFTER

    def keepalive_fired(self, now: float) -> None:
        """After the passive keepalive was sent; data that came meanwhile is answered by another one."""
        if self.need_another_keepalive:
            self.need_another_keepalive = False
            if self.running:
                self.send_keepalive_at = now + KEEPALIVE_TIMEOUT

    # Deadlines.

    def next_at(self) -> float:
        """The earliest deadline, or NEVER."""
        return min(
            self.retransmit_handshake_at,
            self.send_keepalive_at,
            self.new_handshake_at,
            self.zero_key_material_at,
            self.persistent_keepalive_at,
        )

    def pop_due(self, now: float) -> Timer | None:
        """The timer whose deadline passed longest ago, which is then no longer pending; None when nothing is due.

        One at a time, because firing one may cancel or re-arm another.
        """
        at = self.next_at()
        if at > now:
            return None
        for timer, deadline in _DEADLINES.items():
            if getattr(self, deadline) == at:
                setattr(self, deadline, NEVER)
                if timer in (Timer.RETRANSMIT_HANDSHAKE, Timer.NEW_HANDSHAKE):
                    self.jitter = 0.0
                return timer
        return None

    def _draw_jitter(self) -> float:
        self.jitter = int.from_bytes(self.random(2), "little") / 0x10000 * RETRANSMIT_JITTER
        return self.jitter


_DEADLINES: Final = {timer: f"{timer.name.lower()}_at" for timer in Timer}
