"""The connection log in the database, and what the service and an administrator write into it at once."""

from __future__ import annotations

from typing import Any

import pytest

from wgpy.gateway.store import sessions
from wgpy.gateway.store.database import Database


def row(name: str, *, started_at: float = 1000.0, ended_at: float | None = None, reason: str | None = None) -> Any:
    return {
        "id": name,
        "device": f"phone of {name}",
        "user": "alice",
        "started_at": started_at,
        "ended_at": ended_at,
        "reason": reason,
        "entry": {"connection-id": name},
    }


def write(database: Database, *rows: Any) -> None:
    with database.change("gateway") as change:
        sessions.write(change, rows)


def last(database: Database, count: int = 99) -> list[str]:
    with database.read() as connection:
        return [entry["connection-id"] for entry in sessions.last(connection, count)]


def test_a_session_that_is_terminated_while_the_service_writes_its_counters_is_still_to_be_ended(
    database: Database,
) -> None:
    write(database, row("a"), row("b"))
    with database.change("root") as change:
        sessions.terminate(change, "a")
    write(database, row("a"), row("b"))
    with database.read() as connection:
        assert sessions.terminated(connection, ["a", "b"]) == {"a"}
    write(database, row("a", ended_at=2000.0, reason="session-expired"))
    with database.read() as connection:
        assert [each["id"] for each in sessions.under_way(connection)] == ["b"]


def test_entries_are_listed_as_they_began_though_the_date_was_set_back(database: Database) -> None:
    write(database, row("a", started_at=5000.0))
    write(database, row("b", started_at=1000.0))
    write(database, row("a", started_at=5000.0, ended_at=6000.0))
    assert last(database) == ["a", "b"]
    assert last(database, 1) == ["b"]


def test_the_oldest_entries_are_forgotten_and_sessions_under_way_never(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "KEPT", 3)
    write(database, row("live"))
    for number in range(10):
        write(database, row(f"refused {number}", ended_at=1000.0))
        write(database, row("live"))
    assert last(database) == ["live", "refused 7", "refused 8", "refused 9"]
