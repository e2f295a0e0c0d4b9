"""Long tables a page at a time: the right rows, found by a search, in a number of queries that no length changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert

from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.store import audit, devices, groups, paging, sessions, users
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.schema import audit as audit_table
from wgpy.gateway.store.schema import sessions as session_table
from wgpy.keys import PresharedKey, PublicKey

NUMBER = 120


@pytest.fixture
def full(database: Database) -> Database:
    """Alice and 120 users more, every tenth of them in the group ops, and entries of both logs."""
    with database.change("root") as change:
        for n in range(NUMBER):
            users.add(change, User(name=f"user-{n:03}", groups=frozenset({"ops"} if n % 10 == 0 else ())))
        rows = [
            {
                "id": f"{n:016x}", "device": f"device-{n:03}", "user": f"user-{n:03}", "number": n,
                "started_at": float(n),
                "ended_at": None if n < 3 else 1000.0 + n, "reason": None if n < 3 else ("idle", "terminated")[n % 2],
                "entry": {"common-name": f"device-{n:03}", "client-ip": f"10.99.1.{n}", "client-ipv6": "NA",
                          "device-ip": "203.0.113.5"},
            }
            for n in range(NUMBER)
        ]  # fmt: skip
        change.connection.execute(insert(session_table), rows)
    return database


@contextmanager
def counted(connection: Connection) -> Iterator[list[str]]:
    """The statements that are executed within the block."""
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(connection, "before_cursor_execute", note)
    yield statements


def test_pages_together_are_the_whole_table(full: Database) -> None:
    with full.read() as connection:
        pages = [users.page(connection, number) for number in (1, 2, 3)]
        assert [user for page in pages for user in page.rows] == users.find_all(connection)
        assert [(page.number, page.last, page.total, page.first_row) for page in pages] == [
            (1, 3, NUMBER + 1, 1),
            (2, 3, NUMBER + 1, 51),
            (3, 3, NUMBER + 1, 101),
        ]
        logged = [entry for number in (1, 2, 3) for entry in sessions.page(connection, number).rows]
        assert logged[::-1] == sessions.last(connection, NUMBER)
        changes = [entry for number in (1, 2, 3) for entry in audit.page(connection, number).rows]
        assert changes[::-1] == audit.find_last(connection, 1000)


def test_a_page_beyond_the_ends_is_the_nearest(full: Database) -> None:
    with full.read() as connection:
        assert users.page(connection, 10**9).number == 3
        assert users.page(connection, -1).number == 1
        nothing = users.page(connection, 5, "no such user")
        assert (nothing.rows, nothing.number, nothing.last, nothing.total) == ([], 1, 1, 0)


def test_a_search_finds_texts_in_any_case_and_wildcards_mean_themselves(full: Database) -> None:
    with full.read() as connection:
        assert [user.name for user in users.page(connection, 1, "ALI").rows] == ["alice"]
        assert users.page(connection, 1, "user-01").total == 10
        assert users.page(connection, 1, "user-01", "ops").total == 1
        assert users.page(connection, 1, group="ops").rows[0].groups == {"ops"}
        for text in ("%", "_", "/", "'", '"', "\\"):
            assert users.page(connection, 1, text).total == 0
            assert audit.page(connection, 1, text).total == 0
            assert sessions.page(connection, 1, text).total == 0
        assert sessions.page(connection, 1, "device-11").total == 10
        assert [entry["common-name"] for entry in sessions.page(connection, 1, "10.99.1.77").rows] == ["device-077"]
        assert sessions.page(connection, 1, reason="terminated").total == NUMBER // 2 - 1
        assert sessions.page_under_way(connection, 1).total == 3
        assert [row["user"] for row in sessions.page_under_way(connection, 1, "user-001").rows] == ["user-001"]
        assert audit.page(connection, 1, kind="group").total == 2
        assert [entry["name"] for entry in audit.of(connection, "user", "alice")] == ["alice"]


def test_devices_are_found_by_name_user_and_address(database: Database) -> None:
    with database.change("root") as change:
        users.add(change, User(name="bob"))
        for n, (name, user) in enumerate([("phone", "alice"), ("laptop", "alice"), ("tablet", "bob")]):
            devices.add(change, name, user, PublicKey(bytes([n + 1]) * 32), PresharedKey.generate())
    with database.read() as connection:
        every = {device.name: device for device in devices.find_all(connection)}
        assert [*devices.page(connection, 1).rows] == [*every.values()]
        for text in ("tab", "BOB", str(every["tablet"].addresses[0]), "fd00:99::4"):
            assert devices.page(connection, 1, text).rows == [every["tablet"]]
        assert devices.page(connection, 1, user="alice").total == 2
        assert devices.page(connection, 1, "phone", "bob").total == 0


def test_reasons_are_counted_since_a_time(full: Database) -> None:
    with full.read() as connection:
        assert sessions.reasons(connection, 0.0) == {"terminated": 59, "idle": 58}
        assert sessions.reasons(connection, 1000.0 + NUMBER - 1) == {"terminated": 1}


PAGES: dict[str, Callable[[Connection], paging.Page[Any]]] = {
    "users": lambda connection: users.page(connection, 1, "e"),
    "devices": lambda connection: devices.page(connection, 1, "e"),
    "sessions": lambda connection: sessions.page(connection, 1, "e"),
    "sessions under way": lambda connection: sessions.page_under_way(connection, 1, "e"),
    "audit": lambda connection: audit.page(connection, 1, "e"),
}


@pytest.mark.parametrize("name", PAGES)
def test_the_number_of_queries_does_not_grow_with_the_table(name: str, full: Database) -> None:
    with full.change("root") as change:
        for n in range(3):
            groups.add(change, Group(name=f"e{n}"))
    with full.read() as connection, counted(connection) as statements:
        assert len(PAGES[name](connection).rows) <= paging.SIZE
        assert len([each for each in statements if each != "BEGIN"]) in (2, 3)


@pytest.mark.parametrize("both_kinds", ["sqlite"], indirect=True)  # whose plans are stable
def test_a_page_of_the_log_reads_no_more_than_its_rows(full: Database) -> None:
    with full.change("root") as change:
        rows = [
            {"at": 1.0, "who": "root", "kind": "user", "name": "x", "before": None, "after": {"n": n}}
            for n in range(1000)
        ]
        change.connection.execute(insert(audit_table), rows)
    with full.read() as connection:
        assert len(audit.page(connection, 1).rows) == paging.SIZE
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN SELECT * FROM audit ORDER BY id DESC LIMIT 50").all()
        assert "TEMP B-TREE" not in str(plan)
