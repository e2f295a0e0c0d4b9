"""The database as a file: what SQLite does in its own way, and what can go wrong with a file."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Timer

import pytest

from wgpy.errors import ControlError
from wgpy.gateway.policy.people import Group
from wgpy.gateway.store import groups
from wgpy.gateway.store.database import Database

in_sqlite = pytest.mark.parametrize("both_kinds", ["sqlite"], indirect=True)


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


@in_sqlite
def test_to_ask_whether_it_runs_does_not_keep_the_gateway_from_running(database: Database, tmp_path: Path) -> None:
    lock = tmp_path / "gateway.lock"
    with lock.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as another `status` that asks now
        assert not database.is_running()
        Timer(0.1, other.close).start()
        with database.running():
            assert database.is_running()
    assert not database.is_running()


@in_sqlite
def test_a_locked_database_or_a_full_disk_is_reported_with_a_remedy(
    database: Database, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wgpy.gateway.store.sqlite._PATIENCE", 0.0)
    with closing(sqlite3.connect(place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        impatient = Database(place, tmp_path / "gateway.key")
        with pytest.raises(ControlError, match=r"database is locked; another process holds it.*nothing was changed"):
            add_groups(impatient, "late")
        impatient.close()
        other.execute("ROLLBACK")
    with closing(sqlite3.connect(place)) as other:
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


@in_sqlite
def test_a_damaged_database_is_reported(database: Database, place: Path, tmp_path: Path) -> None:
    database.close()
    place.write_bytes(os.urandom(8192))
    with pytest.raises(ControlError, match="restore a backup"):
        Database(place, tmp_path / "gateway.key")
