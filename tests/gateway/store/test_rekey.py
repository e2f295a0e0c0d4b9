"""Every secret of a database can be sealed with another key, while no gateway runs."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.gateway.store.test_directories import BOB, CORP
from tests.support.peers import wait_for
from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.policy.people import Group
from wgpy.gateway.store import credentials, devices, directories, groups, nodes, rekey, schema, users
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.vault import Vault
from wgpy.keys import PresharedKey, PrivateKey


def test_every_sealed_column_is_known() -> None:
    source = Path(schema.__file__).read_text()
    marked = re.findall(r'Column\("(\w+)", LargeBinary.*# sealed$', source, re.MULTILINE)
    assert sorted(each.column.key for each in rekey.SEALED) == sorted(marked)


def test_every_secret_is_sealed_with_the_new_key_and_not_with_the_old_one(database: Database, tmp_path: Path) -> None:
    with database.change("root") as change:
        groups.add(change, Group(name="vpn-x"))
        directories.add(change, CORP, b"a secret")
        users.take_in(change, BOB)
        directories.confirm(change, "bob", b"a token")
        credentials.set_totp(change, "alice", b"a seed", 1, [])
        devices.add(change, "phone", "alice", PrivateKey.generate().public_key, PresharedKey.generate())
    before = secrets(database, database.vault)
    assert len(before) == len(rekey.SEALED)
    new = Vault.create(tmp_path / "new.key")
    with database.change("root") as change:
        assert rekey.reseal(change, new) == len(before)
    assert secrets(database, new) == before
    assert secrets(database, database.vault) == []


def secrets(database: Database, vault: Vault) -> list[bytes]:
    """The secrets that a vault opens."""
    found = []
    with database.read() as connection:
        for column, owner, what in rekey.SEALED:
            for name, sealed in connection.execute(select(owner, column).where(column.is_not(None))).all():
                try:
                    found.append(vault.open(what(name), sealed))
                except ConfigError:
                    continue
    return found


def test_no_key_is_changed_under_a_gateway_that_runs(database: Database, place: Path | str, tmp_path: Path) -> None:
    rekey.check_stopped(database)
    with closing(Database(place, tmp_path / "gateway.key", node="a")) as other, other.running():
        with other.change("gateway") as change:
            nodes.arrive(change, "")
        with pytest.raises(ControlError, match=r"gateway.* runs; stop it first: `systemctl stop"):
            rekey.check_stopped(database)
    assert wait_for(lambda: not database.is_running("a"))  # PostgreSQL hears of it a little later
    rekey.check_stopped(database)
