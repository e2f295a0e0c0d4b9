"""Sessions that go from one gateway to another, with their devices: each is at one node, and begins and ends once.

The node to which a device comes claims its session and goes on counting from what the former node had written. The
former node learns of it by `since`, closes what it had open, and adds with `leave` what it had not written. A node that
was cut off learns of all moves when it is back, because they are numbered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, update

from wgpy.gateway.policy import connection_log
from wgpy.gateway.policy.sessions import NOTHING, Reason, Traffic
from wgpy.gateway.store import sessions as log
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.nodes import LOST
from wgpy.gateway.store.schema import nodes, sessions


class Move(NamedTuple):
    """A session that has moved: where it is now, and what had passed before it came there."""

    id: str
    device: str
    node: str
    carried: Traffic


def claim(change: Change, rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Begin sessions at this node, but where a device has one: that is at this node from now on.

    Returns the latter by device, as rows, whose `carried` is what has passed until now.
    """
    wanted = {row["device"]: row for row in rows}
    query = select(sessions).where(sessions.c.ended_at.is_(None), sessions.c.device.in_(wanted))
    found = {row["device"]: dict(row) for row in change.connection.execute(query).mappings()}
    number = last(change.connection)
    for row in found.values():
        number += 1
        row |= {"node": change.node, "carried": [*connection_log.traffic(row["entry"])], "moved": number}
        values = {key: row[key] for key in ("node", "carried", "moved")}
        change.connection.execute(update(sessions).where(sessions.c.id == row["id"]).values(values))
    log.write(change, [row for device, row in wanted.items() if device not in found])
    return found


def leave(change: Change, session_id: str, more: Traffic) -> None:
    """Add what has passed here, beside what was written, to a session that is at another node by now."""
    row = change.connection.execute(select(sessions).where(sessions.c.id == session_id)).mappings().first()
    if row is None or more == NOTHING:
        return
    values = {"carried": [*carried(row).plus(more)], "moved": last(change.connection) + 1}
    if row["ended_at"] is not None:  # else the node that has it writes the sum
        values["entry"] = connection_log.with_traffic(row["entry"], connection_log.traffic(row["entry"]).plus(more))
    change.connection.execute(update(sessions).where(sessions.c.id == session_id).values(values))


def carried(row: Any) -> Traffic:
    """What of a session had passed before it came to the node where it is."""
    return Traffic(*row["carried"]) if row["carried"] else NOTHING


def last(connection: Connection) -> int:
    """The number of the last move."""
    return connection.execute(select(func.max(sessions.c.moved))).scalar() or 0


def since(connection: Connection, number: int) -> list[Move]:
    """The sessions that have moved, or got something from a former node, after a move of that number."""
    columns = (sessions.c.id, sessions.c.device, sessions.c.node, sessions.c.carried)
    rows = connection.execute(select(*columns).where(sessions.c.moved > number)).mappings()
    return [Move(row["id"], row["device"], row["node"], carried(row)) for row in rows]


def end_lost(change: Change, session_max: float) -> None:
    """End the sessions of nodes that are lost, once their time is up: there, the kernel has closed them by then."""
    alive = select(nodes.c.name).where(nodes.c.seen_at > change.now - LOST)
    over = (
        sessions.c.ended_at.is_(None),
        sessions.c.started_at <= change.now - session_max,
        sessions.c.node.not_in(alive),
    )
    reason = Reason.GATEWAY_STOPPED.value
    for row in change.connection.execute(select(sessions).where(*over)).mappings().all():
        entry = connection_log.ended(row["entry"], reason, began=row["started_at"], wall=change.now)
        values = {"ended_at": change.now, "reason": row["reason"] or reason, "entry": entry}
        change.connection.execute(update(sessions).where(sessions.c.id == row["id"]).values(values))
