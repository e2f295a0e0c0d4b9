"""What users sign in with, their sign-ins and one-time links in the database: kept, used once, and forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select

from wgpy.errors import ConfigError
from wgpy.gateway.policy.logins import IDLE_MAX, LIFETIME
from wgpy.gateway.policy.people import User
from wgpy.gateway.store import audit, credentials, links, logins, passkeys, schema, state, users
from wgpy.gateway.store.database import Change, Database
from wgpy.gateway.store.passkeys import Passkey

SEED, CODE = b"a seed of 20 bytes..", "abcd-efgh-ijkl-mnop"
PASSKEY = Passkey(id="a2V5", user="alice", name="laptop", public_key=b"cose", counter=0, made_at=900.0, used_at=900.0)


def set_everything(change: Change) -> str:
    credentials.set_password(change, "alice", "$argon2id$hash")
    credentials.set_totp(change, "alice", SEED, 33, [CODE, "another"])
    passkeys.add(change, PASSKEY)
    links.add(change, links.SET_UP, "alice", 60.0)
    return logins.add(change, "alice", "passkey", "192.0.2.1")


def test_credentials_are_read_back_and_no_secret_is_in_the_database_or_its_audit_log(
    database: Database, tmp_path: Path
) -> None:
    with database.change("root") as change:
        cookie = set_everything(change)
        secret = links.add(change, links.SET_UP, "alice", 60.0)
        found = credentials.find(change.connection, "alice")
        assert found == credentials.Credentials(
            user="alice", handle=found.handle if found else b"", password="$argon2id$hash", changed_at=1000.0,
            has_totp=True, recovery=2,
        )  # fmt: skip
        assert credentials.totp_seed(change, "alice") == SEED
        assert credentials.handle(change, "alice") == found.handle
        assert credentials.user_of(change.connection, found.handle) == "alice"
        assert credentials.has_second_factor(change.connection, "alice")
        assert passkeys.find_all(change.connection, "alice") == [PASSKEY]
    database.backup(tmp_path / "copy.db")
    stored = (tmp_path / "copy.db").read_bytes()
    for each in (SEED, CODE.encode(), cookie.encode(), secret.encode()):
        assert each not in stored
    with database.read() as connection:
        assert "argon2id" not in repr(audit.find_last(connection, 100))


def test_a_code_of_a_step_or_an_earlier_one_is_used_once(database: Database) -> None:
    with database.change("root") as change:
        credentials.set_password(change, "alice", "$argon2id$hash")
        assert not credentials.use_step(change, "alice", 34), "there is no authenticator app yet"
        credentials.set_totp(change, "alice", SEED, 33, [])
        assert [credentials.use_step(change, "alice", step) for step in (33, 34, 34, 33, 36, 35)] == [
            False, True, False, False, True, False,
        ]  # fmt: skip


def test_a_recovery_code_is_used_once(database: Database) -> None:
    with database.change("root") as change:
        assert not credentials.use_recovery_code(change, "alice", CODE)
        credentials.set_totp(change, "alice", SEED, 33, [CODE, "another"])
        assert [credentials.use_recovery_code(change, "alice", CODE) for _ in range(2)] == [True, False]
        found = credentials.find(change.connection, "alice")
        assert found
        assert found.recovery == 1
        credentials.remove_totp(change, "alice")
        assert not credentials.use_recovery_code(change, "alice", "another")
        assert credentials.totp_seed(change, "alice") is None


def test_a_seed_does_not_open_for_another_user(database: Database) -> None:
    with database.change("root") as change:
        users.add(change, User(name="eve"))
        credentials.set_totp(change, "alice", SEED, 33, [])
        credentials.set_totp(change, "eve", b"x" * 20, 33, [])
        sealed = change.connection.execute(select(schema.credentials.c.totp).where(
            schema.credentials.c.user == "alice")).scalar()  # fmt: skip
        change.connection.execute(
            schema.credentials.update().where(schema.credentials.c.user == "eve").values(totp=sealed)
        )
        with pytest.raises(ConfigError, match="authenticator app of eve: cannot be decrypted"):
            credentials.totp_seed(change, "eve")


def test_a_hash_is_replaced_by_a_better_one_of_the_same_password_only(database: Database) -> None:
    with database.change("root") as change:
        credentials.set_password(change, "alice", "old")
        credentials.rehash(change, "alice", "old", "better")
        credentials.set_password(change, "alice", "new password")
        credentials.rehash(change, "alice", "better", "the old password's")
        found = credentials.find(change.connection, "alice")
        assert found
        assert found.password == "new password"


def test_a_passkey_answers_a_challenge_once_and_is_its_owners(database: Database) -> None:
    with database.change("root") as change:
        users.add(change, User(name="eve"))
        passkeys.add(change, PASSKEY)
        with pytest.raises(ConfigError, match="has been added already"):
            passkeys.add(change, replace(PASSKEY, user="eve"))
        assert [passkeys.use(change, PASSKEY.id, 7, at) for at in (950.0, 950.0, 949.0, 951.0)] == [
            True, False, False, True,
        ]  # fmt: skip
        assert not passkeys.use(change, "b3RoZXI", 7, 999.0)
        with pytest.raises(ConfigError, match="eve has none of that id"):
            passkeys.remove(change, "eve", PASSKEY.id)
        passkeys.remove(change, "alice", PASSKEY.id)
        assert passkeys.find(change.connection, PASSKEY.id) is None


def test_a_sign_in_is_found_by_its_cookie_until_it_ends(database: Database) -> None:
    with database.change("root") as change:
        first, second, third = (logins.add(change, "alice", "passkey", "192.0.2.1") for _ in range(3))
        assert len({first, second, third}) == 3
    with database.read() as connection:
        login = logins.find(connection, first, 1000.0)
        assert login
        assert logins.find(connection, login.id, 1000.0) is None, "what is stored is no cookie"
        assert logins.find(connection, first, 1000.0 + IDLE_MAX) is None
        assert logins.find(connection, "\udcff", 1000.0) is None
    with database.change("alice") as change:
        logins.end(change, login)
        assert logins.find(change.connection, first, 1000.0) is None
        assert logins.find(change.connection, second, 1000.0)
        assert logins.end_all(change, "alice") == 2
        assert logins.find(change.connection, second, 1000.0) is None
        with pytest.raises(ConfigError, match="did you mean alice"):
            logins.add(change, "alicia", "passkey", "192.0.2.1")


def test_sign_ins_do_not_grow_without_bounds(tmp_path: Path) -> None:
    now = [1000.0]
    database = Database.create(tmp_path / "gateway.db", tmp_path / "gateway.key", clock=lambda: now[0])
    with database.change("root") as change:
        users.add(change, User(name="alice"))
        users.add(change, User(name="bob"))
        logins.add(change, "bob", "passkey", "192.0.2.1")
        for number in range(logins.MOST + 5):
            change.now += 1
            newest = logins.add(change, "alice", "passkey", f"192.0.2.{number}")
        found = logins.find_all(change.connection, "alice")
        assert len(found) == logins.MOST
        assert found[0].id == logins.hashed(newest)
        assert found[-1].address == "192.0.2.5"
    now[0] += LIFETIME
    with database.change("root") as change:
        logins.add(change, "bob", "passkey", "192.0.2.1")
        assert change.connection.execute(select(func.count()).select_from(schema.logins)).scalar() == 1
    database.close()


def test_a_disabled_user_is_signed_out_and_stays_so(database: Database) -> None:
    with database.change("root") as change:
        cookie = set_everything(change)
        users.replace(change, User(name="alice", enabled=False))
        assert logins.find(change.connection, cookie, 1000.0) is None
        users.replace(change, User(name="alice"))
        assert logins.find(change.connection, cookie, 1000.0) is None
        assert change.connection.execute(select(schema.links)).all() == []
        assert credentials.has_second_factor(change.connection, "alice"), "what she signs in with stays"


def test_of_a_removed_user_nothing_is_left(database: Database) -> None:
    with database.change("root") as change:
        set_everything(change)
        users.remove(change, "alice")
        for table in (schema.credentials, schema.passkeys, schema.logins, schema.links):
            assert change.connection.execute(select(table)).all() == []


def test_a_link_is_used_once_within_its_time_for_its_purpose(database: Database) -> None:
    with database.change("root") as change:
        former = links.add(change, links.SET_UP, "alice", 60.0)
        secret = links.add(change, links.SET_UP, "alice", 60.0)
        assert links.find(change.connection, links.SET_UP, former, 1000.0) is None, "a new one replaces it"
        assert links.find(change.connection, links.SET_UP, secret, 1059.0) == "alice"
        assert links.find(change.connection, links.SET_UP, secret, 1060.0) is None
        assert links.find(change.connection, "device", secret, 1000.0) is None
        assert links.take(change, "device", secret) is None
        assert [links.take(change, links.SET_UP, secret) for _ in range(2)] == ["alice", None]


def test_what_people_sign_in_with_makes_no_new_policy(database: Database) -> None:
    """Hundreds of people who sign in must not make the service read ten thousand devices again."""
    before = state.read(database)
    with database.change("root") as change:
        set_everything(change)
    after = state.read(database, before)
    assert after[0] is before[0]
    assert after[1] != before[1]
