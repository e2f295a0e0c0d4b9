"""A gateway's database in PostgreSQL, which gateways on several hosts share.

Transactions that write happen one after another, by a lock of the whole database: so nothing that one has checked, such
as that an address is free, is changed by another before it is written. Each tells the others by NOTIFY. The server ends
the transaction of a gateway that was cut off in the middle of it, and its clock is the one that all go by.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import URL, Connection, create_engine, inspect, make_url, select, text, update
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoneFree

from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.store import dump, schema
from wgpy.gateway.store.backend import refuse_unstorable

_PATIENCE: Final = 5  # seconds to wait for a connection, for another that writes, and for what the network has lost
_LOCK: Final = 0x77677079  # "wgpy": who writes
_NODE: Final = _LOCK + 1  # who runs a node: with the hash of its name
_CHANNEL: Final = "wgpy_gateway"
_CHECKED: Final = "verify-full"  # sslmode: the server's certificate and name are checked
_ALIVE: Final = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}  # libpq's names; in seconds
_SERVER: Final = {  # in milliseconds, but for the keepalives
    "lock_timeout": 1000 * _PATIENCE,
    "statement_timeout": 60_000,
    "idle_in_transaction_session_timeout": 10_000,
    "tcp_user_timeout": 10_000,
    **{f"tcp_{name}": value for name, value in _ALIVE.items()},
}
_NOW: Final = "extract(epoch FROM clock_timestamp())::float8 AS now"
_BEGUN: Final = text(  # what is notified is sent when the transaction is committed
    f"SELECT pg_advisory_xact_lock({_LOCK}), pg_notify('{_CHANNEL}', ''), {_NOW}"
)
_EXISTS: Final = text(f"SELECT to_regclass('alembic_version') AS found, {_NOW}")
_AHEAD: Final = 10.0  # seconds by which a host's date may differ from the server's before somebody is told
_REMEDIES: Final = {
    "password": "give one in PGPASSWORD, in ~/.pgpass, or in a file that the URL names: ?passfile=/etc/wgpy/pgpass",
    "certificate": "the URL can name the server's authority: ?sslrootcert=FILE",
    "SSL": "turn on TLS at the server, or add ?sslmode=disable to the URL if nobody else is on the cable",
    "lock timeout": "another gateway or command is writing: the view pg_stat_activity shows which",
    "refused": "is PostgreSQL running there, and does it listen on that address?",
    "does not exist": "create it first: CREATE DATABASE ... OWNER ...",
    "permission denied": "the user must own the database",
    "disk": "make room on the server's disk",
    "space": "make room on the server's disk",
    "too many": "raise max_connections: each gateway takes up to eight",
}


class PostgreSQL:
    """The database at a URL such as postgresql://wgpy@db.example.org/wgpy. Raises ConfigError for another URL.

    What libpq knows may follow as parameters. Without `sslmode`, the server's certificate is checked, unless the server
    is on this host.
    """

    is_shared = True

    def __init__(self, place: str) -> None:
        url = _checked(place)
        self.name: str = URL.create(
            "postgresql", url.username, None, url.host, url.port, url.database
        ).render_as_string()
        self._arguments: dict[str, Any] = {
            "host": url.host, "port": url.port, "user": url.username, "dbname": url.database,
            **_security(url), **url.query,
            "connect_timeout": _PATIENCE, "tcp_user_timeout": 1000 * _PATIENCE, "keepalives": 1, **_ALIVE,
            "application_name": "wgpy gateway",
            "options": " ".join(f"-c {name}={value}" for name, value in _SERVER.items()),
        }  # fmt: skip
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=self.connect,
            pool_size=5,
            max_overflow=2,
            pool_pre_ping=True,
            hide_parameters=True,
        )
        refuse_unstorable(self._engine)
        self._offset = time.time() - _boottime()  # seconds to add for the server's date, which `_heard` corrects
        self._risk = risk(place)
        self._links: list[_Link] = []

    def exists(self) -> bool:
        with self.reading() as connection:
            found = connection.execute(_EXISTS).one()
            self._heard(found.now)
            return found.found is not None

    def create(self) -> None:
        if tables := inspect(self._engine).get_table_names():
            raise ConfigError(f"{self.name}: has tables already, such as {tables[0]}; give the gateway an empty one")
        with self.writing() as connection:
            connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)"))

    def clock(self) -> float:
        return _boottime() + self._offset

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            yield connection.execution_options(**options)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            self._heard(connection.execute(_BEGUN).one().now)
            yield connection

    def watch(self) -> _Link:
        return self._links[0] if self._links else self._linked("")

    @contextmanager
    def running(self, node: str) -> Iterator[Callable[[str], None]]:
        link = self._linked(node)

        def tell(ailment: str) -> None:
            with suppress(psycopg.Error, DBAPIError), self._engine.begin() as connection:
                connection.execute(update(schema.nodes).where(schema.nodes.c.name == node).values(ailment=ailment))

        try:
            yield tell
        finally:
            self._links.remove(link)
            link.close()

    def is_running(self, node: str) -> bool:
        query = (
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = :kind AND "
            "objid::bigint = hashtext(:node)::bigint & 4294967295 AND "
            "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        with self.reading() as connection:
            return connection.execute(text(query), {"kind": _NODE, "node": node}).first() is not None

    def ailment(self, node: str) -> str:
        with self.reading() as connection:
            query = select(schema.nodes.c.ailment).where(schema.nodes.c.name == node)
            return connection.execute(query).scalar() or ""

    def backup(self, target: Path) -> None:
        with self.reading() as connection:
            dump.write(connection, target)

    def warnings(self) -> dict[str, str]:
        found = {"tls": self._risk} if self._risk else {}
        if abs(ahead := time.time() - self.clock()) > _AHEAD:
            found["clock"] = (
                f"the date of this host is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of the "
                "database's server, by which all gateways go; have both follow a time server"
            )
        return found

    def explain(self, error: Exception) -> str | None:
        if isinstance(error, NoneFree):  # in the pool, which is no error of the server's
            return "all connections are in use, and none became free; try again in a moment"
        is_cut = (
            isinstance(error, DBAPIError) and error.connection_invalidated
        )  # whatever class the server's reason has
        if not is_cut and not isinstance(error, OperationalError | InterfaceError | psycopg.Error):
            return None
        lines = str(getattr(error, "orig", error)).strip().splitlines() or ["no answer"]
        remedy = next((remedy for part, remedy in _REMEDIES.items() if part in lines[0]), "")
        return f"{lines[0]}{remedy and f'; {remedy}'}"

    def close(self) -> None:
        self._engine.dispose()
        for link in self._links:
            link.close()

    def connect(self) -> psycopg.Connection:
        """A new connection. Raises psycopg.Error."""
        return psycopg.connect(**self._arguments)

    def _heard(self, now: float) -> None:
        """The server has told its date, which we count on from: no change of our own date moves a session's end."""
        self._offset = now - _boottime()

    def _linked(self, node: str) -> _Link:
        link = _Link(self, node)
        link.changed()  # connects, or raises
        self._links.append(link)
        return link


class _Link:
    """A connection that listens for changes and, for the process that runs a node, holds the node's lock."""

    def __init__(self, server: PostgreSQL, node: str) -> None:
        self._server, self._node = server, node
        self._connection: psycopg.Connection | None = None

    def changed(self) -> bool:
        """Whether there was a change; yes after the connection was lost. Raises ControlError while it is."""
        try:
            if self._connection is None:
                self._connection = self._connected()
                return True
            return bool([*self._connection.notifies(timeout=0)])
        except psycopg.Error as error:
            self.close()
            raise ControlError(f"{self._server.name}: {self._server.explain(error)}") from error

    def close(self) -> None:
        if self._connection is not None:
            if self._node:
                # The server would free the node only when it notices that the connection was closed, which may be too
                # late for a gateway that is restarted at once.
                with suppress(psycopg.Error):
                    self._connection.execute("SELECT pg_advisory_unlock_all()")
            self._connection.close()
            self._connection = None

    def _connected(self) -> psycopg.Connection:
        connection = self._server.connect()
        try:
            connection.autocommit = True
            connection.execute(f"LISTEN {_CHANNEL}")
            if self._node:
                query = "SELECT pg_try_advisory_lock(%s, hashtext(%s))"
                row = connection.execute(query, (_NODE, self._node)).fetchone()
                if row != (True,):
                    raise ControlError(
                        f"{self._server.name}: node {self._node} runs already, here or on another host; "
                        "`wgpy gateway run --node` gives this one another name"
                    )
        except BaseException:
            connection.close()
            raise
        return connection


def _checked(place: str) -> URL:
    try:
        url = make_url(place)
    except (ArgumentError, ValueError):
        raise ConfigError("database: expected a URL such as postgresql://wgpy@db.example.org/wgpy") from None
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ConfigError(f"database {url.drivername}: expected a URL such as postgresql://wgpy@db.example.org/wgpy")
    if url.password is not None or {"password", "sslpassword"} & {*url.query}:
        raise ConfigError(
            "database: leave the password out of the URL, which others may see; put it into PGPASSWORD, ~/.pgpass, or "
            "a file that the URL names: ?passfile=/etc/wgpy/pgpass"
        )
    return url


def risk(place: str) -> str:
    """What others can do because a URL wants less than that the server shows who it is; empty if it does not."""
    url = _checked(place)
    mode = url.query.get("sslmode", _CHECKED)
    if mode == _CHECKED or _is_here(url):
        return ""
    return (
        f"database at {url.host or 'another host'}: with sslmode={mode}, whoever is on the way can pretend to be the "
        f"server, and read and change everything; use sslmode={_CHECKED}, which is so if the URL has none"
    )


def _security(url: URL) -> dict[str, str]:
    if "sslmode" in url.query or _is_here(url):
        return {}
    return {"sslmode": _CHECKED, **({} if "sslrootcert" in url.query else {"sslrootcert": "system"})}


def _is_here(url: URL) -> bool:
    """Whether the server is surely on this host. What libpq would read in the environment counts, too."""
    if {"service", "hostaddr"} & {*url.query} or {"PGSERVICE", "PGHOSTADDR"} & {*os.environ}:
        return False
    given = url.host or url.query.get("host") or os.environ.get("PGHOST", "")
    hosts = given.split(",") if isinstance(given, str) else given
    return all(not host or host.startswith("/") or host in ("localhost", "127.0.0.1", "::1") for host in hosts)


def _boottime() -> float:
    """CLOCK_BOOTTIME, which goes on while the host is suspended, and which no change of the date moves."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
