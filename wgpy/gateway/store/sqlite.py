"""A gateway's database in a file of SQLite's, for one gateway."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.store.backend import Watch, refuse_unstorable
from wgpy.gateway.store.files import make_directory, new

_PROBING: Final = 0.5  # seconds for which others may hold the lock to see whether the gateway runs
_PATIENCE: Final = 5.0  # seconds to wait for another process that writes
_ROOM: Final = 1024  # bytes of the file of the lock, in which a running gateway says what is wrong
_IMMEDIATE: Final = "immediate"
_REMEDIES: Final = {
    "locked": "another process holds it: `fuser -v` on the file shows which",
    "full": "make room on the disk",
    "disk I/O": "make room on the disk; if it has room, see dmesg",  # SQLite says so where the -shm file does not fit
    "readonly": "run this as the gateway's user, or as root",
    "unable to open": "run this as the gateway's user, or as root",
    "malformed": "restore a backup: `wgpy gateway restore FILE`",
    "not a database": "restore a backup: `wgpy gateway restore FILE`",
}


class SQLite:
    """The file `path`. Beside it is the lock of the process that runs the gateway."""

    is_shared = False

    def __init__(self, path: Path) -> None:
        self.name: str = str(path)
        self._path = path
        self._lock = path.with_suffix(".lock")
        self._watches: list[_Watch] = []
        # A connection is closed as soon as it is not used: opening a file costs little.
        url, patience = URL.create("sqlite", database=str(path)), {"timeout": _PATIENCE}
        self._engine = create_engine(url, connect_args=patience, poolclass=NullPool, hide_parameters=True)
        refuse_unstorable(self._engine)
        event.listen(self._engine, "connect", _connected)
        event.listen(self._engine, "begin", _begun)

    def exists(self) -> bool:
        return self._path.exists()

    def create(self) -> None:
        make_directory(self._path.parent)
        with new(self._path):
            pass  # it stays, whatever comes next: then `wgpy gateway init` goes on here

    def clock(self) -> float:
        return time.time()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            writing = connection.execution_options(**{_IMMEDIATE: True})
            with writing.begin():
                yield writing

    def watch(self) -> Watch:
        watch = _Watch(sqlite3.connect(self._path, timeout=_PATIENCE, check_same_thread=False))
        self._watches.append(watch)
        return watch

    @contextmanager
    def running(self, node: str) -> Iterator[Callable[[str], None]]:
        with open(self._lock, "r+b", 0, opener=_private) as file:  # or others could hold the lock
            if not _taken(file, fcntl.LOCK_EX, _PROBING):
                raise ControlError(f"{self._lock}: the gateway runs already; `wgpy gateway status` shows it")

            def tell(ailment: str) -> None:
                with suppress(OSError):
                    os.pwrite(file.fileno(), ailment.encode(errors="replace")[:_ROOM].ljust(_ROOM), 0)

            tell("")  # takes the room, so that a full disk can be told, too
            yield tell

    def is_running(self, node: str) -> bool:
        with open(self._lock, "r+b", 0, opener=_private) as file:  # several may ask at once
            return not _taken(file, fcntl.LOCK_SH)

    def ailment(self, node: str) -> str:
        try:
            return self._lock.read_text(errors="replace").rstrip()
        except OSError as error:
            return f"{self._lock}: {error.strerror}"

    def backup(self, target: Path) -> None:
        with closing(self._plain()) as here, closing(sqlite3.connect(target)) as there:
            here.backup(there)

    def take_out(self, source: Path, target: Path) -> tuple[str, bytes, str]:
        """Copy a backup to a new file. Returns its interface, sealed key, and revision.

        Raises ConfigError if it is no backup.
        """
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as there:
            try:
                sound = there.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                row = there.execute("SELECT interface, private_key FROM endpoint").fetchone()
                found = there.execute("SELECT version_num FROM alembic_version").fetchone()
            except sqlite3.DatabaseError:
                sound, row, found = False, None, None
            if not sound or not row or not found:
                raise ConfigError(f"{source}: not a backup of a gateway, or a damaged one")
            with new(target), closing(sqlite3.connect(target)) as here:
                there.backup(here)
        return row[0], row[1], found[0]

    def replace(self, source: Path) -> None:
        """Replace everything by what another file has."""
        with closing(sqlite3.connect(source)) as there, closing(self._plain()) as here:
            there.backup(here)

    def warnings(self) -> dict[str, str]:
        return {}

    def explain(self, error: Exception) -> str | None:
        if not isinstance(error, DBAPIError | sqlite3.Error):
            return None
        reason = str(getattr(error, "orig", error))
        remedy = next((remedy for part, remedy in _REMEDIES.items() if part in reason), "")
        if not remedy and not isinstance(error, OperationalError | sqlite3.Error):
            return None
        return f"{reason}{remedy and f'; {remedy}'}"

    def close(self) -> None:
        self._engine.dispose()
        for watch in self._watches:
            watch.close()

    def _plain(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_PATIENCE)


class _Watch:
    """SQLite counts the changes that other connections make."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._seen = self._version()

    def changed(self) -> bool:
        before, self._seen = self._seen, self._version()
        return self._seen != before

    def close(self) -> None:
        self._connection.close()

    def _version(self) -> int:
        try:
            number: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            raise ControlError(f"the gateway's database: {error}") from error
        return number


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o600)


def _taken(file: IO[bytes], kind: int, patience: float = 0.0) -> bool:
    """Take a lock of flock(2) within so many seconds. Returns whether that worked."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        else:
            return True


def _connected(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin as `_begun` says, not as the module thinks best
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # what was confirmed survives a power failure


def _begun(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_IMMEDIATE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
