"""Sessions that are under way, with what the database and the connection log say about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from wgpy.gateway.enforcement.nft import Passed
from wgpy.gateway.policy import connection_log, handler
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.sessions import NOTHING, Session, State, Terms, Traffic
from wgpy.gateway.policy.snapshot import Policy


class Question(NamedTuple):
    """What to ask the handler about a session; `Gateway.answer` takes the answer."""

    session: str
    handler: str
    text: str
    user: str = ""  # to run it as


class Live(NamedTuple):
    """A session with what the log says about it."""

    session: Session
    began: float  # in seconds since 1970
    user: str  # whose device it was then, whoever has one of this name now
    groups: tuple[str, ...]  # those of the user then
    client: tuple[str, str]  # address and port
    before: Traffic = NOTHING  # what passed before the session was opened anew, which sets the counters to zero
    carried: Traffic = NOTHING  # how much of that passed at other nodes
    written: Traffic = NOTHING  # what the database knows

    @classmethod
    def of(cls, row: Mapping[str, Any], session: Session, client: tuple[str, str], carried: Traffic) -> Live:
        """The session of a row of the database, which says whose it was."""
        groups = tuple(row["entry"]["groups"])
        return cls(session, row["started_at"], row["user"], groups, client, carried, carried, carried)

    def entry(self, policy: Policy, wall: float) -> dict[str, Any]:
        """The entry of the connection log; `wall` is now, in seconds since 1970."""
        return connection_log.entry(
            self.session,
            interface=policy.endpoint.interface,
            user=self.user,
            groups=self.groups,
            device_ip=self.client[0],
            port=self.client[1],
            began=self.began,
            wall=wall,
        )

    def row(self, policy: Policy, wall: float) -> dict[str, Any]:
        """The row in the database."""
        session, entry = self.session, self.entry(policy, wall)
        return {
            "id": session.id,
            "device": session.device,
            "user": self.user,
            "started_at": self.began,
            "ended_at": wall if session.state is State.ENDED else None,
            "reason": session.reason.value if session.reason else None,
            "entry": entry,
        }

    def question(self, policy: Policy) -> Question:
        """What to ask the handler."""
        device = policy.devices[self.session.device]
        text = handler.question(
            self.session.id,
            interface=policy.endpoint.interface,
            device=device.name,
            user=device.user,
            groups=policy.users[device.user].groups,
            public_ip=self.client[0],
        )
        return Question(self.session.id, policy.endpoint.handler, text, policy.endpoint.handler_user)


def restored(row: Mapping[str, Any], terms: Terms, *, started_at: float, now: float, until: float) -> Session:
    """The active session of a row, for the clock of sessions."""
    return Session(
        id=row["id"],
        device=row["device"],
        addresses=terms.addresses,
        state=State.ACTIVE,
        started_at=started_at,
        active_at=now,
        until=until,
        opened=row["entry"]["connection-attempt-status"] == "successful",
        posture=tuple(row["entry"]["posture-compliance-statuses"]),
    )


def passed(addresses: Iterable[Address], sent: dict[Address, Passed], received: dict[Address, Passed]) -> Traffic:
    """What the kernel has counted for these addresses."""
    ingress = [sent[address] for address in addresses if address in sent]
    egress = [received[address] for address in addresses if address in received]
    return Traffic(
        sum(each.bytes for each in ingress),
        sum(each.packets for each in ingress),
        sum(each.bytes for each in egress),
        sum(each.packets for each in egress),
    )
