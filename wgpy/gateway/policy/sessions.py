"""Sessions: the time during which a device may send and receive. A state machine of immutable values.

::

    pending --allowed by the handler--> active --------> ended
       \\---------denied, or no answer----------------->/

A session is pending from a device's first packet until the client connect handler has answered; without a handler it
is active at once. Each step returns the new state and what to do: ask the handler, open or close the addresses, log.
`now` is in seconds of CLOCK_BOOTTIME, which no change of the date moves and no restart of the process resets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from operator import add
from typing import Final, NamedTuple

from wgpy.gateway.policy.destinations import Address


class State(StrEnum):
    """Where a session is in its life."""

    PENDING = "pending"
    ACTIVE = "active"
    ENDED = "ended"


class Reason(StrEnum):
    """Why a session ended or never began. Those of the handler are AWS's `connection-attempt-failure-reason`s."""

    EXPIRED = "session-expired"
    IDLE = "idle"
    TERMINATED = "terminated"
    USER_DISABLED = "user-disabled"
    USER_EXPIRED = "user-expired"
    DEVICE_DISABLED = "device-disabled"
    DEVICE_REMOVED = "device-removed"
    ADDRESS_CHANGED = "address-changed"
    CERTIFICATE = "certificate-not-accepted"
    NOT_SIGNED_IN = "not-signed-in"
    GATEWAY_STOPPED = "gateway-stopped"
    FIREWALL_FAILED = "firewall-failed"
    DENIED = "client-connect-failed"
    HANDLER_TIMEOUT = "client-connect-handler-timed-out"
    HANDLER_ERROR = "client-connect-handler-other-execution-error"
    HANDLER_INVALID = "client-connect-handler-invalid-response"


class Traffic(NamedTuple):
    """What passed: ingress is from the client, egress to it."""

    ingress_bytes: int = 0
    ingress_packets: int = 0
    egress_bytes: int = 0
    egress_packets: int = 0

    def plus(self, more: Traffic) -> Traffic:
        """Both together."""
        return Traffic(*map(add, self, more))

    def less(self, other: Traffic) -> Traffic:
        """What is more than `other`; nothing where it is less, as after counters began anew."""
        return Traffic(*(max(0, one - two) for one, two in zip(self, other, strict=True)))


NOTHING: Final = Traffic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the policy says about a device now. Sessions that are under way are held to new terms at once."""

    addresses: tuple[Address, ...]
    session_max: float
    """Seconds that a session lasts."""
    idle_max: float = 0.0
    """Seconds without a packet after which it ends; 0 for no limit."""
    refusal: Reason | None = None
    """Why there may be no session; None if there may."""
    ask_handler: bool = False
    """Whether the client connect handler is to be asked."""
    signed_in_at: float | None = None
    """When the device's person proved who they are: a session lasts from then. None: from its own beginning."""
    access_until: float = inf
    """When its user loses access."""

    def until(self, started_at: float) -> float:
        """When a session that started then ends."""
        return min(
            (started_at if self.signed_in_at is None else self.signed_in_at) + self.session_max, self.access_until
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the client connect handler, and then call `answered` or `failed`."""


@dataclass(frozen=True, slots=True)
class Open:
    """Let packets from and to these addresses pass, until `until`, in place of what was said about them before."""

    addresses: tuple[Address, ...]
    until: float


@dataclass(frozen=True, slots=True)
class Close:
    """Let no packet from or to these addresses pass, also none of established connections."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Log:
    """Write an entry about the session to the connection log."""


Effect = Ask | Open | Close | Log


class Step(NamedTuple):
    """A session's next state, and what to do, in this order."""

    session: Session
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session of a device."""

    id: str
    device: str
    addresses: tuple[Address, ...]
    state: State
    started_at: float
    """When the first packet came."""
    active_at: float
    """When the last packet came or went."""
    until: float
    """When it ends at the latest."""
    opened: bool = False
    """Whether it ever was active."""
    ended_at: float | None = None
    reason: Reason | None = None
    message: str = ""
    """What the handler, or whoever ended the session, said."""
    posture: tuple[str, ...] = ()
    """The posture compliance statuses from the handler."""
    traffic: Traffic = NOTHING

    @classmethod
    def begin(cls, session_id: str, device: str, terms: Terms, now: float) -> Step:
        """A device without a session has sent a packet."""
        session = cls(
            id=session_id,
            device=device,
            addresses=terms.addresses,
            state=State.PENDING,
            started_at=now,
            active_at=now,
            until=terms.until(now),
        )
        if terms.refusal is not None:
            return session._end(terms.refusal, now)
        if session.until <= now:
            return session._end(_ending(terms, now, Reason.NOT_SIGNED_IN), now)
        return Step(session, (Ask(),)) if terms.ask_handler else session._open(now)

    def answered(self, *, allow: bool, message: str, posture: tuple[str, ...], terms: Terms, now: float) -> Step:
        """The handler has answered. What was decided meanwhile counts, too: `terms` are those of now."""
        if self.state is not State.PENDING:
            return Step(self)
        answered = replace(self, message=message, posture=posture)
        if not allow:
            return answered._end(Reason.DENIED, now)
        judged = answered.judge(terms, now)
        return judged if judged.session.state is State.ENDED else judged.session._open(now)

    def failed(self, reason: Reason, now: float) -> Step:
        """The handler gave no answer, or none that can be understood: the session does not begin."""
        return self._end(reason, now) if self.state is State.PENDING else Step(self)

    def judge(self, terms: Terms, now: float) -> Step:
        """Hold the session to the terms of now: end it if they or the time say so, or move its end."""
        if self.state is State.ENDED:
            return Step(self)
        until = terms.until(self.started_at)
        if terms.refusal is not None:
            return self._end(terms.refusal, now)
        if terms.addresses != self.addresses:
            return self._end(Reason.ADDRESS_CHANGED, now)
        if until <= now:
            return self._end(_ending(terms, now, Reason.EXPIRED), now)
        if self.state is State.ACTIVE and terms.idle_max and self.active_at + terms.idle_max <= now:
            return self._end(Reason.IDLE, now)
        if until == self.until:
            return Step(self)
        moved = replace(self, until=until)
        return Step(moved, (Open(self.addresses, until),) if self.state is State.ACTIVE else ())

    def measured(self, traffic: Traffic, now: float) -> Session:
        """The session's counters were read: `traffic` is all of it since the session began."""
        if traffic == self.traffic:
            return self
        return replace(self, traffic=traffic, active_at=now)

    def ended(self, reason: Reason, now: float, message: str = "") -> Step:
        """Somebody ends the session, or its device is gone."""
        return (
            Step(self)
            if self.state is State.ENDED
            else replace(self, message=message or self.message)._end(reason, now)
        )

    def _open(self, now: float) -> Step:
        session = replace(self, state=State.ACTIVE, active_at=now, opened=True)
        return Step(session, (Open(self.addresses, self.until), Log()))

    def _end(self, reason: Reason, now: float) -> Step:
        session = replace(self, state=State.ENDED, ended_at=now, reason=reason)
        return Step(session, (Close(self.addresses), Log()) if self.state is State.ACTIVE else (Log(),))


def _ending(terms: Terms, now: float, otherwise: Reason) -> Reason:
    return Reason.USER_EXPIRED if terms.access_until <= now else otherwise
