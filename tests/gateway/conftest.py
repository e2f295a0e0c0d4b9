"""A gateway's database, in SQLite and in PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
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
    copied = request.getfixturevalue("company_in_postgresql").stem if "database" in request.fixturenames else ""
    made: list[str] = []

    def make(name: str) -> str:
        if name not in made:
            template = copied if name == "gateway" and copied else "template1"
            server.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
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


def _make_company(place: Path | str, key: Path) -> None:
    settings = Endpoint(
        host="vpn.example.org", pools=(ip_network("10.99.0.0/29"), ip_network("fd00:99::/64")), session_max=8 * 3600
    )
    with closing(Database.create(place, key, clock=_clock)) as made, made.change("root") as change:
        endpoint.add(change, settings, PrivateKey.generate())
        for name in ("staff", "ops"):
            groups.add(change, Group(name=name))
        users.add(change, User(name="alice", groups=frozenset({"staff"})))


def _clock() -> float:
    return 1000.0


@pytest.fixture(scope="session")
def company_in_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key of what `database` copies, which is beside it."""
    key = tmp_path_factory.mktemp("company") / "company.key"
    _make_company(key.with_suffix(".db"), key)
    return key


@pytest.fixture(scope="session")
def company_in_postgresql(postgresql: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key of what `database` copies: that database of the server is called as the file."""
    key = tmp_path_factory.mktemp("company") / "company.key"
    postgresql.sql(f'CREATE DATABASE "{key.stem}"')
    _make_company(postgresql.url(key.stem), key)
    return key


@pytest.fixture
def database(place: Path | str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database with an endpoint, two groups, and Alice, who is in one of them.

    It is a copy of one that is made once in a process: to make it takes longer than most tests.
    """
    if isinstance(place, Path):
        made: Path = request.getfixturevalue("company_in_sqlite")
        shutil.copy(made.with_suffix(".db"), place)
    else:
        made = request.getfixturevalue("company_in_postgresql")
    key = tmp_path / "gateway.key"
    shutil.copy(made, key)
    opened = Database(place, key, clock=_clock)
    yield opened
    opened.close()
