"""Sessions in the database: those under way, and the connection log of those that ended or never began."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from wgpy.gateway.policy.sessions import Reason
from wgpy.gateway.store import lookup, paging
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import devices, sessions

KEPT: Final = 100_000  # entries of the connection log, some 100 MB


def write(change: Change, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add this node's sessions, or replace those of the same id. The service does: this is no change of the policy.

    What `terminate` wrote meanwhile stays, and so does a session that is at another node now. Of the sessions that are
    over, the oldest are forgotten, so that clients that try again and again do not fill the disk.
    """
    every = [{**row, "node": change.node} for row in rows]
    if not every:
        return
    known = set(change.connection.execute(select(sessions.c.id).where(sessions.c.ended_at.is_(None))).scalars())
    number = newest = _last_number(change.connection)
    for row in every:
        if row["id"] not in known:
            number += 1
        row["number"] = number
    dialect: Any = sqlite if change.connection.dialect.name == "sqlite" else postgresql
    added = dialect.insert(sessions)
    values: dict[str, Any] = {name: added.excluded[name] for name in every[0] if name not in ("id", "number")}
    values["reason"] = func.coalesce(added.excluded.reason, sessions.c.reason)
    written = added.on_conflict_do_update(
        index_elements=["id"], set_=values, where=sessions.c.node == added.excluded.node
    )
    change.connection.execute(written, every)
    if number > newest:
        over = sessions.c.number <= number - KEPT, sessions.c.ended_at.is_not(None)
        change.connection.execute(delete(sessions).where(*over))


def under_way(connection: Connection, node: str | None = None) -> list[dict[str, Any]]:
    """The sessions that have not ended, of all nodes or of one."""
    query = select(sessions).where(sessions.c.ended_at.is_(None)).order_by(sessions.c.started_at)
    if node is not None:
        query = query.where(sessions.c.node == node)
    return [dict(row) for row in connection.execute(query).mappings()]


def started(connection: Connection, user: str) -> dict[str, float]:
    """When each of a user's sessions that has not ended began, by device, in seconds since 1970."""
    query = select(sessions.c.device, sessions.c.started_at)
    rows = connection.execute(query.where(sessions.c.user == user, sessions.c.ended_at.is_(None)))
    return {row.device: row.started_at for row in rows}


def last(connection: Connection, count: int) -> list[dict[str, Any]]:
    """The last entries of the connection log, in the order in which they began, whatever the date was."""
    rows = connection.execute(select(sessions.c.entry).order_by(sessions.c.number.desc()).limit(count)).scalars()
    return list(rows)[::-1]


def page(
    connection: Connection, number: int, text: str = "", reason: str = "", *, size: int = paging.SIZE
) -> paging.Page[dict[str, Any]]:
    """A page of the connection log, the newest first: with `text` in device, user or address, and with that reason."""
    addresses = (sessions.c.entry[key].as_string() for key in ("client-ip", "client-ipv6", "device-ip"))
    matching = paging.contains(text, sessions.c.device, sessions.c.user, *addresses)
    query = select(sessions.c.entry).where(matching).order_by(sessions.c.number.desc())
    if reason:
        query = query.where(sessions.c.reason == reason)
    found = paging.find(connection, query, number, size)
    return replace(found, rows=[row.entry for row in found.rows])


def page_under_way(
    connection: Connection, number: int, text: str = "", *, user: str = "", device: str = "", size: int = paging.SIZE
) -> paging.Page[dict[str, Any]]:
    """A page of the sessions that have not ended, the newest first.

    With `text` in the name of the device or user, and of one `user` or one `device`, if it is given.
    """
    matching = [paging.contains(text, sessions.c.device, sessions.c.user), sessions.c.ended_at.is_(None)]
    matching += [column == name for column, name in ((sessions.c.user, user), (sessions.c.device, device)) if name]
    query = select(sessions).where(*matching).order_by(sessions.c.started_at.desc(), sessions.c.id)
    found = paging.find(connection, query, number, size)
    return replace(found, rows=[dict(row._mapping) for row in found.rows])


def find_under_way(connection: Connection, session_id: str) -> dict[str, Any]:
    """The entry of a session that has not ended. Raises ConfigError if there is none of that id."""
    query = select(sessions.c.entry).where(sessions.c.id == session_id, sessions.c.ended_at.is_(None))
    entry: dict[str, Any] | None = connection.execute(query).scalar()
    if entry is None:
        raise lookup.Missing(
            f"session {session_id!a}: no session of that id is under way; the connection log has it", session_id
        )
    return entry


def reasons(connection: Connection, since: float) -> dict[str, int]:
    """Why sessions ended or did not begin since then, in seconds since 1970, and how often; the most frequent first."""
    number = func.count()
    query = select(sessions.c.reason, number).where(sessions.c.ended_at >= since)
    rows = connection.execute(query.group_by(sessions.c.reason).order_by(number.desc()))
    return {row[0]: row[1] for row in rows}


def terminate(change: Change, name: str) -> list[str]:
    """Have the service end a session, or all of a device or user; returns their ids. Raises ConfigError if none is.

    Where people sign in, they have to do so again.
    """
    matching = or_(sessions.c.id == name, sessions.c.device == name, sessions.c.user == name)
    query = select(sessions.c.id, sessions.c.device).where(matching, sessions.c.ended_at.is_(None))
    found = list(change.connection.execute(query))
    if not found:
        raise lookup.Missing(
            f"session {name!a}: no session, device or user of that name is connected; `wgpy gateway session list` "
            "shows who is",
            name,
        )
    for session_id, device in found:
        change.record("session", session_id, {"device": device}, {"device": device, "terminated": True})
    signed_in = update(devices).where(devices.c.name.in_([row.device for row in found]))
    change.connection.execute(signed_in.values(signed_in_at=None))
    wanted = update(sessions).where(sessions.c.id.in_([row.id for row in found]))
    change.connection.execute(wanted.values(reason=Reason.TERMINATED.value))
    return [row.id for row in found]


def terminated(connection: Connection, ids: Collection[str]) -> set[str]:
    """Which of these sessions are to be ended."""
    query = select(sessions.c.id).where(sessions.c.reason == Reason.TERMINATED.value, sessions.c.ended_at.is_(None))
    return set(connection.execute(query).scalars()) & set(ids)


def _last_number(connection: Connection) -> int:
    return connection.execute(select(func.max(sessions.c.number))).scalar() or 0
