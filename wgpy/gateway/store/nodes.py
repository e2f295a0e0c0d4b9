"""The gateways that share a database: each is a node, with an interface of its own, and says that it is alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from wgpy import __version__
from wgpy.gateway.store import endpoint
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import nodes, sessions

LOST: Final = 60.0  # seconds without a word after which a node counts as lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A gateway that shares the database. Times are in seconds since 1970, by the database's clock."""

    name: str
    interface: str
    """Its interface, if that is not the endpoint's; else empty."""
    started_at: float
    seen_at: float
    version: str
    ailment: str
    """What is wrong with it, or empty."""
    sessions: int
    """How many sessions are there."""

    def json(self) -> dict[str, Any]:
        """What is shown of it."""
        return {key: getattr(self, key) for key in self.__slots__}


def find_all(connection: Connection) -> list[Node]:
    """All nodes, by name."""
    query = select(sessions.c.node, func.count()).where(sessions.c.ended_at.is_(None)).group_by(sessions.c.node)
    counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(query)}
    rows = connection.execute(select(nodes).order_by(nodes.c.name)).mappings()
    return [Node(**row, sessions=counts.get(row["name"], 0)) for row in rows]


def interface(connection: Connection, node: str) -> str:
    """The interface of a node: the endpoint's, unless the node has another one."""
    found: str | None = connection.execute(select(nodes.c.interface).where(nodes.c.name == node)).scalar()
    return found or endpoint.find(connection).interface


def arrive(change: Change, interface: str) -> None:
    """Record that this node begins to run, on an interface of its own if one is given."""
    values = {"interface": interface, "started_at": change.now, "seen_at": change.now, "version": __version__}
    row = {"name": change.node, **values, "ailment": ""}
    change.connection.execute(delete(nodes).where(nodes.c.name == change.node))
    change.connection.execute(insert(nodes).values(row))


def beat(change: Change, interface: str) -> None:
    """Record that this node is alive."""
    seen = update(nodes).where(nodes.c.name == change.node).values(seen_at=change.now)
    if not change.connection.execute(seen).rowcount:  # a backup without it was restored
        arrive(change, interface)
