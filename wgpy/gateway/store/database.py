"""The database: opened, migrated, changed with a record of who changed what, backed up and restored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from sqlalchemy import Connection, insert, inspect, text

from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.store import dump, restoring, schema
from wgpy.gateway.store.backend import Backend, Watch
from wgpy.gateway.store.files import make_directory, new
from wgpy.gateway.store.restoring import Restored
from wgpy.gateway.store.sqlite import SQLite
from wgpy.gateway.store.vault import Vault

HEAD: Final = "0011"  # the newest migration
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


class Change:
    """A transaction in which the database is changed. Every object that changes is recorded in the audit log."""

    def __init__(self, connection: Connection, vault: Vault, who: str, now: float, node: str) -> None:
        self.node: str = node  # the gateway whose sessions are written
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
    """A gateway's database, and the key of its secrets, in the file `key`.

    The database is a file of SQLite's if `place` is a path, and in PostgreSQL if it is a URL. `clock` gives seconds
    since 1970; without it, the time is that of all who use the database. `node` names the gateway on this host among
    those that share the database.

    Raises ConfigError if there is none, and ControlError where the system or another process is in the way.
    """

    def __init__(self, place: Path | str, key: Path, clock: Callable[[], float] | None = None, node: str = "") -> None:
        self._backend = backend = _backend(place)
        self._key = key
        self.name: str = backend.name
        self.node: str = node if backend.is_shared else ""
        self.clock: Callable[[], float] = clock or backend.clock
        try:
            with self._explained():
                if not backend.exists():
                    raise ConfigError(f"{self.name}: there is no gateway yet; `wgpy gateway init` makes one")
            self.vault: Vault = Vault.read(key)
            self._migrate()
        except BaseException:
            backend.close()
            raise

    @classmethod
    def create(cls, place: Path | str, key: Path, clock: Callable[[], float] | None = None, node: str = "") -> Database:
        """Make a new database and its key; files have mode 0600. Raises ConfigError if there is a database already.

        A key that is there is kept: it is a backup's, or `wgpy gateway init` was killed.
        """
        with closing(_backend(place)) as backend, _explained(backend):
            if backend.exists():
                raise ConfigError(f"{backend.name}: exists already; a gateway is made only once")
            make_directory(key.parent)
            if key.exists():
                Vault.read(key)
            else:
                Vault.create(key)
            backend.create()
        return cls(place, key, clock, node)

    @staticmethod
    def exists(place: Path | str) -> bool:
        """Whether there is a database. Raises ConfigError and ControlError."""
        with closing(_backend(place)) as backend, _explained(backend):
            return backend.exists()

    @property
    def is_shared(self) -> bool:
        """Whether gateways on several hosts may use it."""
        return self._backend.is_shared

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database for as long as the block runs."""
        with self._explained(), self._backend.reading() as connection:
            yield connection

    @contextmanager
    def change(self, who: str) -> Iterator[Change]:
        """A transaction: all of it, with its records, or nothing. `who` is recorded."""
        with self._explained(), self._backend.writing() as connection:
            yield Change(connection, self.vault, who, self.clock(), self.node)

    def watch(self) -> Watch:
        """Notice when another process changes the database, until this is closed or the database is."""
        return self._backend.watch()

    def backup(self, target: Path) -> None:
        """Copy the database to a new file with mode 0600, while others use it. Raises ConfigError if it exists."""
        with new(target), self._explained():
            self._backend.backup(target)

    def restore(self, source: Path, who: str) -> Restored:
        """Replace everything by what a backup has, less what `restoring` says, and record that.

        Raises ConfigError if it is no backup of ours.
        """
        if not source.is_file():
            raise ConfigError(f"{source}: there is no such file")
        with self.read() as connection:
            before = restoring.ways_in(connection)
        with source.open(encoding="utf-8", errors="replace") as file:
            is_dump = file.read(len(dump.MARK)) == dump.MARK
            file.seek(0)
            if is_dump:
                with self.change(who) as change:
                    self._load(change.connection, file, str(source))
                    return _restored(change, source, before)
        backend = self._backend
        if not isinstance(backend, SQLite):
            raise ConfigError(f"{source}: not a backup of a gateway in PostgreSQL, or a damaged one")
        with TemporaryDirectory() as directory:  # nothing is in force before what has to be revoked is gone
            copy = Path(directory) / "gateway.db"
            with self._explained():
                self._check(str(source), *backend.take_out(source, copy))
            with closing(Database(copy, self._key, self.clock)) as opened, opened.change(who) as change:
                restored = _restored(change, source, before)
            with self._explained():
                backend.replace(copy)
        return restored

    def copy_to(self, target: Database, who: str) -> int:
        """Replace everything in another database by what this one has. Returns how many rows that is."""
        with self.read() as here, target.change(who) as change:
            count = target._load(change.connection, dump.lines(here), self.name)
            change.record("backup", self.name, None, {"migrated": target.name})
        return count

    def running(self) -> AbstractContextManager[Callable[[str], None]]:
        """Be the process that runs this gateway. Raises ControlError if another process is.

        What is yielded takes what is wrong with the gateway, or an empty text, for `ailment` in other processes.
        """
        return self._backend.running(self.node)

    def ailment(self) -> str:
        """What the process that runs this gateway says is wrong; empty if all is well."""
        with self._explained():
            return self._backend.ailment(self.node)

    def warnings(self) -> dict[str, str]:
        """What works and should yet be changed: sentences by what they are about, such as "clock"."""
        return self._backend.warnings()

    def is_running(self, node: str | None = None) -> bool:
        """Whether a process runs this gateway, or another node of those that share the database."""
        with self._explained():
            return self._backend.is_running(self.node if node is None else node)

    def close(self) -> None:
        """Close all connections."""
        self._backend.close()

    def _load(self, connection: Connection, lines: Iterable[str], name: str) -> int:
        """Take in a copy, within a transaction. Returns its number of rows."""

        def upgrade(revision: str) -> None:
            _check_revision(name, revision)
            _upgrade(connection, revision)

        count = dump.load(connection, lines, name, upgrade)
        row = connection.execute(text("SELECT interface, private_key FROM endpoint")).first()
        if row is None:
            raise ConfigError(f"{name}: not a backup of a gateway, or a damaged one")
        self._check(name, row.interface, row.private_key, HEAD)
        _upgrade(connection, HEAD)
        return count

    def _check(self, name: str, interface: str, private_key: bytes, revision: str) -> None:
        _check_revision(name, revision)
        self.vault.open(f"private key of {interface}", private_key)

    def _migrate(self) -> None:
        with self.read() as connection:
            found = _revision(connection)
        if found == HEAD:
            return
        if found is not None:
            _check_revision(self.name, found)
        with self.change("wgpy") as change:
            _upgrade(change.connection, HEAD)

    def _explained(self) -> AbstractContextManager[None]:
        return _explained(self._backend)


def _backend(place: Path | str) -> Backend:
    if isinstance(place, Path):
        return SQLite(place)
    from wgpy.gateway.store.postgresql import PostgreSQL

    return PostgreSQL(place)


@contextmanager
def _explained(backend: Backend) -> Iterator[None]:
    """Turn errors of the database into a line that names it and the remedy."""
    try:
        yield
    except Exception as error:
        reason = backend.explain(error)
        if reason is None:
            raise
        raise ControlError(f"{backend.name}: {reason}; nothing was changed") from error


def _restored(change: Change, source: Path, before: restoring.Ways | None) -> Restored:
    restored = restoring.revoke(change.connection, before, change.now)
    change.record("backup", source.name, None, {"restored": str(source), **restored.json()})
    return restored


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _check_revision(name: str, found: str) -> None:
    if not list(_MIGRATIONS.glob(f"versions/{found}_*.py")):
        raise ConfigError(f"{name}: made by a newer wgpy (migration {found}); install that, or restore a backup")


def _upgrade(connection: Connection, revision: str) -> None:
    """Run the migrations up to this one."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
