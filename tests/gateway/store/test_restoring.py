"""What was ended, used up or revoked since a backup stays so when the backup is restored; the rest is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.gateway.conftest import Places
from wgpy.gateway.policy.people import User
from wgpy.gateway.policy.tokens import Token
from wgpy.gateway.store import credentials, devices, links, logins, restoring, tokens, users
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.restoring import Restored
from wgpy.keys import PresharedKey, PublicKey

STEP = 1000 // 30  # the period of the database's clock
TOKEN = Token(name="ci", scopes=frozenset({"write"}), made_at=1000.0)


def test_nothing_that_was_revoked_or_used_is_good_again(database: Database, tmp_path: Path) -> None:
    with database.change("root") as change:
        token = tokens.add(change, TOKEN)
        cookie = logins.add(change, "alice", "password", "192.0.2.9")
        link = links.add(change, "invitation", "alice", 1e9)
        credentials.set_totp(change, "alice", bytes(20), STEP - 5, ["used", "unused"])
    database.backup(tmp_path / "backup")
    with database.change("root") as change:
        tokens.remove(change, "ci")
        logins.forget(change, cookie)
        links.take(change, "invitation", link)
        assert credentials.use_step(change, "alice", STEP + 1)
        assert credentials.use_recovery_code(change, "alice", "used")
    assert database.restore(tmp_path / "backup", "root") == Restored(tokens=["ci"], back=[])
    with database.change("root") as change:
        assert tokens.find_by_text(change.connection, token, 1000.0) is None
        assert tokens.find_all(change.connection) == []
        assert logins.find(change.connection, cookie, 1000.0) is None
        assert links.take(change, "invitation", link) is None
        assert not credentials.use_step(change, "alice", STEP + 1)
        assert credentials.use_step(change, "alice", STEP + 2), "the app itself is still good"
        for code in ("used", "unused"):
            assert not credentials.use_recovery_code(change, "alice", code)


def test_what_is_good_again_is_told(database: Database, tmp_path: Path) -> None:
    with database.change("root") as change:
        for name in ("bob", "carol", "dave"):
            users.add(change, User(name=name))
        devices.add(change, "phone", "alice", PublicKey(bytes([1]) * 32), PresharedKey.generate())
        devices.add(change, "laptop", "alice", PublicKey(bytes([2]) * 32), PresharedKey.generate())
        for name in ("alice", "bob"):
            credentials.set_password(change, name, "old")
            credentials.set_totp(change, name, bytes(20), STEP, [])
    database.backup(tmp_path / "backup")
    with database.change("root") as change:
        users.remove(change, "carol")
        users.replace(change, replace(users.find(change.connection, "dave"), enabled=False))
        users.add(change, User(name="erin"))
        devices.enable(change, "phone", enabled=False)
        credentials.set_password(change, "alice", "new")
        credentials.remove_totp(change, "bob")
    restored = database.restore(tmp_path / "backup", "root")
    assert restored.back == [
        "authenticator app of bob", "device phone", "password of alice", "user carol", "user dave",
    ]  # fmt: skip


def test_a_restore_that_is_interrupted_has_changed_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the backup's tokens would be good from then on."""
    with database.change("root") as change:
        tokens.add(change, TOKEN)
    database.backup(tmp_path / "backup")
    with database.change("root") as change:
        tokens.remove(change, "ci")

    def killed(*_: object) -> Restored:
        raise KeyboardInterrupt

    monkeypatch.setattr(restoring, "revoke", killed)
    with pytest.raises(KeyboardInterrupt):
        database.restore(tmp_path / "backup", "root")
    with database.read() as connection:
        assert tokens.find_all(connection) == []


def test_nobody_is_back_on_a_new_host(database: Database, places: Places, tmp_path: Path) -> None:
    database.backup(tmp_path / "backup")
    new = Database.create(places("new"), tmp_path / "gateway.key")
    try:
        assert new.restore(tmp_path / "backup", "root").back == []
    finally:
        new.close()
