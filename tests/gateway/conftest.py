"""A gateway's database, in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, inspect

from tests.support.postgres import Postgres, postgres
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.store import database as store
from wgpy.gateway.store import endpoint, groups, users
from wgpy.gateway.store.database import HEAD, Database
from wgpy.keys import PrivateKey

Places = Callable[[str], Path | str]
"""Gives the place of a new database by its name."""


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_replayed() -> Iterator[None]:
    """Every migration runs once in a process for each kind of database, and new databases get the same statements.

    Alembic takes longer to find them than most tests do. A database that has tables is migrated as ever.
    """
    upgrade, version, recorded = store._upgrade, store._revision, dict[tuple[str, ...], list[tuple[str, Any]]]()

    def replay(connection: Connection, revision: str) -> None:
        tables = inspect(connection).get_table_names()
        what = (connection.dialect.name, *tables)
        if revision != HEAD or {*tables} - {"alembic_version"} or version(connection):
            upgrade(connection, revision)
        elif statements := recorded.get(what):
            for statement, parameters in statements:
                connection.exec_driver_sql(statement, parameters)
        else:
            found: list[tuple[str, Any]] = []

            def note(_: object, __: object, statement: str, parameters: Any, *rest: object) -> None:
                if not statement.startswith("SELECT"):
                    found.append((statement, parameters))

            event.listen(connection, "before_cursor_execute", note)
            upgrade(connection, revision)
            event.remove(connection, "before_cursor_execute", note)
            recorded[what] = found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_upgrade", replay)
        yield


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """A server of PostgreSQL for all tests of a process."""
    with postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)])
def both_kinds(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Places]:
    """Where databases can be made: files in the temporary directory, or databases of the server, of either kind."""
    if request.param == "sqlite":
        yield lambda name: tmp_path / f"{name}.db"
        return
    server: Postgres = request.getfixturevalue("postgresql")
    made: list[str] = []

    def make(name: str) -> str:
        if name not in made:
            server.sql(f'CREATE DATABASE "{name}"')
            made.append(name)
        return server.url(name)

    yield make
    for name in made:
        server.sql(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def places(both_kinds: Places) -> Places:
    """Where `database` and others are made; directories of tests that need only one kind say so here."""
    return both_kinds


@pytest.fixture
def place(places: Places) -> Path | str:
    """Where `database` is."""
    return places("gateway")


@pytest.fixture
def database(place: Path | str, tmp_path: Path) -> Iterator[Database]:
    """A new database with an endpoint, two groups, and Alice, who is in one of them."""
    made = Database.create(place, tmp_path / "gateway.key", clock=lambda: 1000.0)
    settings = Endpoint(
        host="vpn.example.org", pools=(ip_network("10.99.0.0/29"), ip_network("fd00:99::/64")), session_max=8 * 3600
    )
    with made.change("root") as change:
        endpoint.add(change, settings, PrivateKey.generate())
        for name in ("staff", "ops"):
            groups.add(change, Group(name=name))
        users.add(change, User(name="alice", groups=frozenset({"staff"})))
    yield made
    made.close()
