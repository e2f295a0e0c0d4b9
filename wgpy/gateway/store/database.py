"""The database: opened, migrated, changed with a record of who changed what, backed up and restored."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy import URL, Connection, create_engine, delete, event, insert, text, update
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from wgpy.daemon.files import new_file
from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.store import schema
from wgpy.gateway.store.vault import Vault

HEAD: Final = "0006"  # the newest migration
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_PROBING: Final = 0.5  # seconds for which others may hold the lock to see whether the gateway runs
_PATIENCE: Final = 5.0  # seconds to wait for another process that writes
_IMMEDIATE: Final = "immediate"


class Change:
    """A transaction in which the database is changed. Every object that changes is recorded in the audit log."""

    def __init__(self, connection: Connection, vault: Vault, who: str, now: float) -> None:
        self.connection: Connection = connection
        self.vault: Vault = vault
        self.now: float = now  # seconds since 1970
        self._who = who

    def record(self, kind: str, name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        """Write an entry of the audit log: None before for what is new, and after for what is gone."""
        if before != after:
            row = {"at": self.now, "who": self._who, "kind": kind, "name": name, "before": before, "after": after}
            self.connection.execute(insert(schema.audit).values(row))


class Database:
    """A gateway's database, in the file `path`, and the key of its secrets, in the file `key`.

    Raises ConfigError if there is none, and ControlError where the system or another process is in the way.
    """

    def __init__(self, path: Path, key: Path, clock: Callable[[], float] = time.time) -> None:
        if not path.exists():
            raise ConfigError(f"{path}: there is no gateway yet; `wgpy gateway init` makes one")
        self.path: Path = path
        self.vault: Vault = Vault.read(key)
        self._clock = clock
        self._lock = path.with_suffix(".lock")
        self._watches: list[Watch] = []
        # A connection is closed as soon as it is not used: opening a file costs little.
        url, patience = URL.create("sqlite", database=str(path)), {"timeout": _PATIENCE}
        self._engine = create_engine(url, connect_args=patience, poolclass=NullPool)
        event.listen(self._engine, "connect", _connected)
        event.listen(self._engine, "begin", _begun)
        self._migrate()

    @classmethod
    def create(cls, path: Path, key: Path, clock: Callable[[], float] = time.time) -> Database:
        """Make a new database and its key, each with mode 0600. Raises ConfigError if there is a database already.

        A key that is there is kept: it is a backup's, or `wgpy gateway init` was killed.
        """
        if path.exists():
            raise ConfigError(f"{path}: exists already; a gateway is made only once")
        for made in (path, key):
            try:
                made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{made.parent}: {error.strerror}") from error
        if key.exists():
            Vault.read(key)
        else:
            Vault.create(key)
        with _new(path):
            pass  # it stays, whatever comes next: then `wgpy gateway init` goes on here
        return cls(path, key, clock)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database for as long as the block runs."""
        with self._explained(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def change(self, who: str) -> Iterator[Change]:
        """A transaction: all of it, with its records, or nothing. `who` is recorded."""
        with self._explained(), self._engine.connect() as connection:
            writing = connection.execution_options(**{_IMMEDIATE: True})
            with writing.begin():
                yield Change(writing, self.vault, who, self._clock())

    def watch(self) -> Watch:
        """Notice when another process changes the database, until this is closed or the database is."""
        watch = Watch(sqlite3.connect(self.path, timeout=_PATIENCE, check_same_thread=False))
        self._watches.append(watch)
        return watch

    def backup(self, target: Path) -> None:
        """Copy the database to a new file with mode 0600, while others use it. Raises ConfigError if it exists."""
        with _new(target), self._explained(), closing(self._plain()) as here, closing(sqlite3.connect(target)) as there:
            here.backup(there)

    def restore(self, source: Path, who: str) -> None:
        """Replace everything by what a backup has, and record that. Raises ConfigError if it is no backup of ours."""
        if not source.is_file():
            raise ConfigError(f"{source}: there is no such file")
        with self._explained(), closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as there:
            self._check_backup(source, there)
            with closing(self._plain()) as here:
                there.backup(here)
        self._migrate()
        with self.change(who) as change:
            self._end_sessions(change)
            change.record("backup", source.name, None, {"restored": str(source)})

    @contextmanager
    def running(self) -> Iterator[Callable[[str], None]]:
        """Hold the lock of the process that runs the gateway. Raises ControlError if another process holds it.

        What is yielded takes what is wrong with the gateway, or an empty text, for `ailment` in other processes.
        """
        with open(self._lock, "a", opener=_private) as file:  # or others could hold the lock
            if not _taken(file, fcntl.LOCK_EX, _PROBING):
                raise ControlError(f"{self._lock}: the gateway runs already; `wgpy gateway status` shows it")

            def tell(ailment: str) -> None:
                with suppress(OSError):  # a full disk
                    file.truncate(0)
                    file.write(ailment)
                    file.flush()

            yield tell

    def ailment(self) -> str:
        """What the process that runs the gateway says is wrong; empty if all is well."""
        try:
            return self._lock.read_text()
        except OSError as error:
            return f"{self._lock}: {error.strerror}"

    def is_running(self) -> bool:
        """Whether a process runs the gateway. Several may ask at once."""
        with open(self._lock, "a", opener=_private) as file:
            return not _taken(file, fcntl.LOCK_SH)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        for watch in self._watches:
            watch.close()

    def _end_sessions(self, change: Change) -> None:
        """End a backup's sessions, which have ended since or go on under other ids; people sign in again."""
        present = schema.sessions.c.ended_at.is_(None)
        change.connection.execute(update(schema.sessions).where(present).values(ended_at=change.now, reason="restored"))
        change.connection.execute(update(schema.devices).values(signed_in_at=None))
        for table in (schema.logins, schema.links):
            change.connection.execute(delete(table))

    def _check_backup(self, source: Path, there: sqlite3.Connection) -> None:
        try:
            sound = there.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            row = there.execute("SELECT interface, private_key FROM endpoint").fetchone()
            found = there.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.DatabaseError:
            sound, row, found = False, None, None
        if not sound or not row or not found:
            raise ConfigError(f"{source}: not a backup of a gateway, or a damaged one")
        self._check_revision(source, found[0])
        self.vault.open(f"private key of {row[0]}", row[1])

    def _migrate(self) -> None:
        with self.read() as connection:
            found = self._revision(connection)
        if found == HEAD:
            return
        if found is not None:
            self._check_revision(self.path, found)
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        with self.change("wgpy") as change:
            config.attributes["connection"] = change.connection
            command.upgrade(config, "head")

    def _check_revision(self, path: Path, found: str) -> None:
        if not list(_MIGRATIONS.glob(f"versions/{found}_*.py")):
            raise ConfigError(f"{path}: made by a newer wgpy (migration {found}); install that, or restore a backup")

    def _revision(self, connection: Connection) -> str | None:
        if connection.execute(text("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")).first() is None:
            return None
        found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return found

    def _plain(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_PATIENCE)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the database into a line that names the file and the remedy."""
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            reason = str(getattr(error, "orig", error))
            remedy = next((remedy for part, remedy in _REMEDIES.items() if part in reason), "")
            if not remedy and not isinstance(error, OperationalError | sqlite3.Error):
                raise
            raise ControlError(f"{self.path}: {reason}{remedy and f'; {remedy}'}; nothing was changed") from error


class Watch:
    """Says whether others have changed the database, which costs a few microseconds to ask."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._seen = self._version()

    def changed(self) -> bool:
        """Whether there was a change since this was last asked. Raises ControlError."""
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


_REMEDIES: Final = {
    "locked": "another process holds it: `fuser -v` on the file shows which",
    "full": "make room on the disk",
    "disk I/O": "make room on the disk; if it has room, see dmesg",  # SQLite says so where the -shm file does not fit
    "readonly": "run this as the gateway's user, or as root",
    "unable to open": "run this as the gateway's user, or as root",
    "malformed": "restore a backup: `wgpy gateway restore FILE`",
    "not a database": "restore a backup: `wgpy gateway restore FILE`",
}


@contextmanager
def _new(path: Path) -> Iterator[None]:
    """Make an empty file with mode 0600; it is removed again if the block raises. Raises ConfigError."""
    with ExitStack() as made:
        try:
            made.enter_context(new_file(path, b""))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _taken(file: IO[str], kind: int, patience: float = 0.0) -> bool:
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
