"""The database as a file: its secrets, migrations, backups, and what can go wrong with it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Timer

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.store import audit, devices, endpoint, groups, schema, users
from wgpy.gateway.store.database import HEAD, Database
from wgpy.gateway.store.vault import Vault
from wgpy.keys import PresharedKey, PublicKey

KEY = PublicKey(bytes([7]) * 32)
PSK = PresharedKey(bytes(range(32)))
VERSIONS = sorted((Path(schema.__file__).parent / "migrations" / "versions").glob("0*.py"))


def test_the_migrations_make_the_tables_of_the_schema(database: Database) -> None:
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_a_database_has_no_secret_that_its_key_file_does_not_open(database: Database, tmp_path: Path) -> None:
    with database.change("root") as change:
        devices.add(change, "phone", "alice", KEY, PSK)
    with database.read() as connection:
        private = endpoint.private_key(connection, database.vault)
    database.close()
    everything = b"".join(path.read_bytes() for path in tmp_path.glob("gateway.db*"))
    for secret in (bytes(PSK), PSK.base64().encode(), bytes(private), private.base64().encode()):
        assert secret not in everything
    assert database.path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "gateway.key").stat().st_mode & 0o777 == 0o600


def test_another_key_opens_nothing_and_a_secret_in_another_place_neither(database: Database, tmp_path: Path) -> None:
    other = Vault.create(tmp_path / "other.key")
    with database.read() as connection, pytest.raises(ConfigError, match="the key file is not the one"):
        endpoint.private_key(connection, other)
    sealed = other.seal("preshared key of phone", b"secret")
    with pytest.raises(ConfigError, match="preshared key of laptop: cannot be decrypted"):
        other.open("preshared key of laptop", sealed)


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [(b"c2hvcnQ=", 0o600, "32 bytes in base64"), (b"", 0o600, "32 bytes"), (b"A" * 43 + b"=", 0o644, "chmod 600")],
)
def test_a_key_file_that_is_wrong_or_readable_by_others_is_refused(
    content: bytes, mode: int, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=why):
        Vault.read(path)


def test_a_change_that_fails_midway_leaves_nothing(database: Database) -> None:
    with pytest.raises(ConfigError, match="half: exists already"):
        add_groups(database, "half", "half")
    with database.read() as connection:
        assert [group.name for group in groups.find_all(connection)] == ["ops", "staff"]
        assert "half" not in {entry["name"] for entry in audit.find_last(connection, 100)}


def test_another_process_notices_a_change(database: Database) -> None:
    watch = database.watch()
    assert not watch.changed()
    with database.change("root") as change:
        groups.add(change, Group(name="new"))
    assert watch.changed()
    assert not watch.changed()
    watch.close()


def test_a_backup_restores_everything_while_the_gateway_runs(database: Database, tmp_path: Path) -> None:
    saved = tmp_path / "saved.db"
    with database.read() as reading:
        users.find_all(reading)
        database.backup(saved)
    assert saved.stat().st_mode & 0o777 == 0o600
    with database.change("root") as change:
        users.remove(change, "alice")
    watch = database.watch()
    database.restore(saved, "root")
    assert watch.changed()
    watch.close()
    with database.read() as connection:
        assert [user.name for user in users.find_all(connection)] == ["alice"]
        assert audit.find_last(connection, 1)[0]["after"] == {"restored": str(saved)}
    with pytest.raises(ConfigError, match=r"saved\.db: File exists"):
        database.backup(saved)


def test_a_file_that_is_no_backup_of_this_gateway_is_not_restored(database: Database, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, but a text that is long enough to be read as one" * 20)
    with closing(sqlite3.connect(tmp_path / "strange.db")) as strange:
        strange.execute("CREATE TABLE t (c)")
    other = Database.create(tmp_path / "other" / "o.db", tmp_path / "other" / "o.key")
    with other.change("root") as change, database.read() as connection:
        endpoint.add(change, endpoint.find(connection), endpoint.private_key(connection, database.vault))
    other.backup(tmp_path / "other.db")
    other.close()
    for name, why in (
        ("text", "not a backup"),
        ("strange.db", "not a backup"),
        ("missing", "no such file"),
        ("other.db", "key file is not the one"),
    ):
        with pytest.raises(ConfigError, match=why):
            database.restore(tmp_path / name, "root")
    with database.read() as connection:
        assert [user.name for user in users.find_all(connection)] == ["alice"]


def test_a_gateway_can_be_created_only_once(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.db: exists already"):
        Database.create(tmp_path / "gateway.db", tmp_path / "new.key")
    with pytest.raises(ConfigError, match="`wgpy gateway init` makes one"):
        Database(tmp_path / "none.db", tmp_path / "gateway.key")


def test_a_backup_of_a_newer_wgpy_or_without_an_endpoint_does_not_replace_what_there_is(
    database: Database, tmp_path: Path
) -> None:
    for change, why in (
        ("UPDATE alembic_version SET version_num = '9999'", "made by a newer wgpy"),
        ("DELETE FROM endpoint", "not a backup"),
    ):
        saved = tmp_path / f"{why}.db"
        database.backup(saved)
        with closing(sqlite3.connect(saved)) as connection:
            connection.execute(change)
            connection.commit()
        with pytest.raises(ConfigError, match=why):
            database.restore(saved, "root")
    with database.read() as connection:
        assert endpoint.find(connection)


def test_any_name_of_a_file_is_that_file(tmp_path: Path) -> None:
    directory = tmp_path / "a?mode=memory#b%41"
    made = Database.create(directory / "gateway.db", tmp_path / "key")
    with made.running():
        pass
    made.close()
    assert {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()} == {
        "gateway.db": 0o600,
        "gateway.lock": 0o600,
    }
    assert {path.name for path in tmp_path.iterdir()} == {directory.name, "key"}


def test_to_ask_whether_it_runs_does_not_keep_the_gateway_from_running(database: Database, tmp_path: Path) -> None:
    lock = tmp_path / "gateway.lock"
    with lock.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as another `status` that asks now
        assert not database.is_running()
        Timer(0.1, other.close).start()
        with database.running():
            assert database.is_running()
    assert not database.is_running()


def test_a_database_of_a_newer_wgpy_is_refused_unchanged(database: Database, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database.path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(ConfigError, match="made by a newer wgpy"):
        Database(database.path, tmp_path / "gateway.key")


@pytest.mark.parametrize("version", [path.name[:4] for path in VERSIONS if path.name[:4] != HEAD])
def test_a_database_of_an_older_wgpy_is_migrated(version: str, database: Database, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    config = Config()
    config.set_main_option("script_location", str(VERSIONS[0].parent.parent))
    engine = create_engine(f"sqlite:///{old}", poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        connection.execute(text("INSERT INTO users (name, enabled) VALUES ('alice', true), ('bob', false)"))
    migrated = Database(old, tmp_path / "gateway.key")
    with migrated.read() as connection:
        assert users.find_all(connection) == [User(name="alice"), User(name="bob", enabled=False)]
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    migrated.close()


def test_head_is_the_newest_migration() -> None:
    assert VERSIONS[-1].name.startswith(f"{HEAD}_")


def test_a_locked_database_or_a_full_disk_is_reported_with_a_remedy(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wgpy.gateway.store.database._PATIENCE", 0.0)
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        impatient = Database(database.path, database.path.with_suffix(".key"))
        with pytest.raises(ControlError, match=r"database is locked; another process holds it.*nothing was changed"):
            add_groups(impatient, "late")
        impatient.close()
        other.execute("ROLLBACK")
    with closing(sqlite3.connect(database.path)) as other:
        pages = other.execute("PRAGMA page_count").fetchone()[0]
    with pytest.raises(ControlError, match="full; make room on the disk; nothing was changed"):
        add_groups(database, *(f"g{number}" for number in range(2000)), max_pages=pages)
    with database.read() as connection:
        assert len(groups.find_all(connection)) == 2


def add_groups(database: Database, *names: str, max_pages: int = 1 << 30) -> None:
    with database.change("root") as change:
        change.connection.exec_driver_sql(f"PRAGMA max_page_count = {max_pages}")
        for name in names:
            groups.add(change, Group(name=name, description="x" * 200))


def test_a_damaged_database_is_reported(database: Database, tmp_path: Path) -> None:
    database.close()
    database.path.write_bytes(os.urandom(8192))
    with pytest.raises(ControlError, match="restore a backup"):
        Database(database.path, tmp_path / "gateway.key")
