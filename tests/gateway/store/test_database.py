"""The database, of either kind: its secrets, migrations, backups, and what can go wrong with it."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import cast

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from tests.gateway.conftest import Places
from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.store import audit, devices, dump, endpoint, groups, schema, users
from wgpy.gateway.store.database import HEAD, Database
from wgpy.gateway.store.postgresql import PostgreSQL
from wgpy.gateway.store.vault import Vault
from wgpy.keys import PresharedKey, PublicKey
from wgpy.labs.traffic import wait_for

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
        everything = "".join(dump.lines(connection)).encode()
    database.close()
    everything += b"".join(path.read_bytes() for path in tmp_path.glob("gateway.db*"))
    for secret in (bytes(PSK), PSK.base64().encode(), bytes(private), private.base64().encode()):
        assert secret not in everything
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_an_error_of_a_statement_does_not_tell_its_values(database: Database) -> None:
    statement = text("INSERT INTO links (id, purpose, user) VALUES (:secret, :secret, :secret)")
    with pytest.raises(DBAPIError) as failed, database.change("root") as change:
        change.connection.execute(statement, {"secret": "s3cr3t"})
    assert "s3cr3t" not in str(failed.value)


@pytest.mark.peer
@pytest.mark.parametrize("both_kinds", ["postgresql"], indirect=True)
def test_a_crowd_that_takes_all_connections_keeps_others_waiting_and_ends_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = cast(PostgreSQL, database._backend)
    monkeypatch.setattr(backend._engine.pool, "_timeout", 0.0)
    with ExitStack() as crowd:
        for _ in range(7):
            crowd.enter_context(database.read())
        with pytest.raises(ControlError, match="all connections are in use"):
            crowd.enter_context(database.read())
    with database.read() as connection:
        assert users.find_all(connection)


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


def add_groups(database: Database, *names: str) -> None:
    with database.change("root") as change:
        for name in names:
            groups.add(change, Group(name=name))


def test_another_process_notices_a_change(database: Database) -> None:
    watch = database.watch()
    assert not watch.changed()
    with database.change("root") as change:
        groups.add(change, Group(name="new"))
    assert wait_for(watch.changed)
    assert not watch.changed()
    watch.close()


def test_a_backup_restores_everything_while_the_gateway_runs(database: Database, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    with database.read() as reading:
        users.find_all(reading)
        database.backup(saved)
    assert saved.stat().st_mode & 0o777 == 0o600
    with database.change("root") as change:
        users.remove(change, "alice")
    watch = database.watch()
    database.restore(saved, "root")
    assert wait_for(watch.changed)
    watch.close()
    with database.read() as connection:
        assert [user.name for user in users.find_all(connection)] == ["alice"]
        record = {"restored": str(saved), "revoked_tokens": [], "back": ["user alice"]}
        assert audit.find_last(connection, 1)[0]["after"] == record
    with pytest.raises(ConfigError, match="saved: File exists"):
        database.backup(saved)


def test_a_file_that_is_no_backup_of_this_gateway_is_not_restored(
    database: Database, places: Places, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no database at all, but a text that is long enough to be read as one" * 20)
    (tmp_path / "mark").write_text(f'{dump.MARK}: "0001"}}\n{{"table": "users"}}\n')
    with closing(sqlite3.connect(tmp_path / "strange.db")) as strange:
        strange.execute("CREATE TABLE t (c)")
    other = Database.create(places("other"), tmp_path / "o.key")
    with other.change("root") as change, database.read() as connection:
        endpoint.add(change, endpoint.find(connection), endpoint.private_key(connection, database.vault))
    other.backup(tmp_path / "other.backup")
    other.close()
    for name, why in (
        ("text", "not a backup"),
        ("mark", "not a backup"),
        ("strange.db", "not a backup"),
        ("missing", "no such file"),
        ("other.backup", "key file is not the one"),
    ):
        with pytest.raises(ConfigError, match=why):
            database.restore(tmp_path / name, "root")
    with database.read() as connection:
        assert [user.name for user in users.find_all(connection)] == ["alice"]


def test_a_gateway_can_be_created_only_once(
    database: Database, place: Path | str, places: Places, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        Database.create(place, tmp_path / "new.key")
    with pytest.raises(ConfigError, match="`wgpy gateway init` makes one"):
        Database(places("none"), tmp_path / "gateway.key")


def test_a_backup_of_a_newer_wgpy_or_without_an_endpoint_does_not_replace_what_there_is(
    database: Database, tmp_path: Path
) -> None:
    for statement, why in (
        ("DELETE FROM endpoint", "not a backup"),
        ("UPDATE alembic_version SET version_num = '9999'", "made by a newer wgpy"),
    ):
        before = tmp_path / f"before {why}"
        database.backup(before)
        with database.change("root") as change:
            change.connection.execute(text(statement))
        saved = tmp_path / f"{why}"
        database.backup(saved)
        database.restore(before, "root")
        with pytest.raises(ConfigError, match=why):
            database.restore(saved, "root")
    with database.read() as connection:
        assert endpoint.find(connection)


def test_a_database_of_a_newer_wgpy_is_refused_unchanged(database: Database, place: Path | str, tmp_path: Path) -> None:
    with database.change("root") as change:
        change.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="made by a newer wgpy"):
        Database(place, tmp_path / "gateway.key")


@pytest.mark.parametrize("version", [path.name[:4] for path in VERSIONS if path.name[:4] != HEAD])
def test_a_database_of_an_older_wgpy_is_migrated(
    version: str, database: Database, places: Places, tmp_path: Path
) -> None:
    old = places("old")
    config = Config()
    config.set_main_option("script_location", str(VERSIONS[0].parent.parent))
    url = f"sqlite:///{old}" if isinstance(old, Path) else old.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        connection.execute(text("INSERT INTO users (name, enabled) VALUES ('alice', true), ('bob', false)"))
    migrated = Database(old, tmp_path / "gateway.key")
    with migrated.read() as connection:
        assert users.find_all(connection) == [User(name="alice"), User(name="bob", enabled=False)]
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    migrated.close()


def test_head_is_the_newest_migration_and_each_number_is_given_once() -> None:
    numbers = [f"{number:04}" for number in range(1, int(HEAD) + 1)]
    assert [path.name[:4] for path in VERSIONS] == numbers
    scripts = ScriptDirectory(str(VERSIONS[0].parent.parent))
    assert scripts.get_heads() == [HEAD]
    chain = [*scripts.walk_revisions()][::-1]
    assert [(each.revision, each.down_revision) for each in chain] == [*zip(numbers, [None, *numbers], strict=False)]
    assert [Path(each.path).name[:4] for each in chain] == numbers


def test_what_cannot_be_stored_is_refused_in_a_sentence(database: Database) -> None:
    with pytest.raises(ConfigError, match="cannot be stored"), database.change("root") as change:
        change.connection.execute(update(schema.endpoint).values(session_max=1 << 70))
    for odd in ("a\ud800", *(["a\0"] if database.is_shared else [])):  # SQLite stores a NUL
        with pytest.raises(ConfigError, match="cannot be stored"), database.change("root") as change:
            groups.add(change, Group(name="odd", description=odd))
        with pytest.raises(ConfigError, match="cannot be stored"), database.change("root") as change:
            users.add(change, User(name="odd", display_name=odd))
        with pytest.raises(ConfigError, match="cannot be stored"), database.read() as connection:
            audit.page(connection, 1, odd)
    with database.read() as connection:
        assert "odd" not in {group.name for group in groups.find_all(connection)}
