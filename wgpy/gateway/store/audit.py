"""The audit log: who changed what, and what it was before and after. Only `Change.record` writes it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from wgpy.gateway.store.schema import audit


def find_last(connection: Connection, count: int) -> list[dict[str, Any]]:
    """The last entries, the newest last."""
    rows = connection.execute(select(audit).order_by(audit.c.id.desc()).limit(count)).mappings()
    return [dict(row) for row in rows][::-1]
