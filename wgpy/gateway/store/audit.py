"""The audit log: who changed what, and what it was before and after. Only `Change.record` writes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, select

from wgpy.gateway.store import paging
from wgpy.gateway.store.schema import audit

_OF_ONE: Final = 10  # entries that are shown with an object


def find_last(connection: Connection, count: int) -> list[dict[str, Any]]:
    """The last entries, the newest last."""
    rows = connection.execute(select(audit).order_by(audit.c.id.desc()).limit(count)).mappings()
    return [dict(row) for row in rows][::-1]


def page(
    connection: Connection, number: int, text: str = "", kind: str = "", *, size: int = paging.SIZE
) -> paging.Page[dict[str, Any]]:
    """A page of the entries with `text` in what was changed or in who did it, and of a kind; the newest first."""
    query = select(audit).where(paging.contains(text, audit.c.name, audit.c.who)).order_by(audit.c.id.desc())
    if kind:
        query = query.where(audit.c.kind == kind)
    found = paging.find(connection, query, number, size)
    return replace(found, rows=[dict(row._mapping) for row in found.rows])


def of(connection: Connection, kind: str, name: str) -> list[dict[str, Any]]:
    """The last changes of one object, the newest first."""
    query = select(audit).where(audit.c.kind == kind, audit.c.name == name).order_by(audit.c.id.desc()).limit(_OF_ONE)
    return [dict(row) for row in connection.execute(query).mappings()]


def kinds(connection: Connection) -> list[str]:
    """The kinds of objects that have entries, sorted."""
    return sorted(connection.execute(select(audit.c.kind).distinct()).scalars())
