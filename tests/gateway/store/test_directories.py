"""Directories in the database, the users that come from them, and whom to ask about again."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

import pytest
from sqlalchemy import Connection

from wgpy.errors import ConfigError
from wgpy.gateway.policy.directories import Directory, GroupMapping
from wgpy.gateway.policy.people import Group, Person, User
from wgpy.gateway.store import audit, devices, directories, dump, groups, logins, users
from wgpy.gateway.store.database import Change, Database
from wgpy.keys import PresharedKey, PublicKey

CORP = Directory(
    name="corp",
    kind="oidc",
    settings={"issuer": "https://id.example.org", "client_id": "vpn"},
    groups=GroupMapping(names={"vpn users": "staff"}, prefix="vpn-"),
)
BOB = Person(name="bob", source="corp", subject="4711", groups=frozenset({"vpn users"}), email="bob@example.org")


@pytest.fixture
def change(database: Database) -> Change:  # type: ignore[misc]
    """A change of a database that has the directory."""
    with database.change("root") as made:
        directories.add(made, CORP, b"a secret")
        yield made


def test_a_directory_is_kept_without_its_secret_in_the_clear(database: Database) -> None:
    with database.change("root") as change:
        directories.add(change, CORP, b"a secret")
    with database.read() as connection:
        assert directories.find_all(connection) == [CORP]
        assert directories.secret(connection, database.vault, "corp") == b"a secret"
        assert "secret" not in str(audit.find_last(connection, 9))
        assert not secret_in("a secret", connection)


def secret_in(secret: str, connection: Connection) -> bool:
    """Whether a database has a secret in the clear, or only encoded."""
    everything = "".join(dump.lines(connection))
    return secret in everything or b64encode(secret.encode()).decode() in everything


def test_a_new_secret_is_recorded_but_not_what_it_is(change: Change) -> None:
    directories.replace(change, replace(CORP, grace=0), b"another")
    assert directories.secret(change.connection, change.vault, "corp") == b"another"
    assert audit.find_last(change.connection, 1)[0]["after"] == {**CORP.json(), "grace": 0, "secret": "changed"}


def test_a_person_becomes_a_user_whose_groups_follow_the_directory(change: Change) -> None:
    made = users.take_in(change, BOB)
    assert made == users.find(change.connection, "bob")
    assert (made.source, made.subject, made.email) == ("corp", "4711", "bob@example.org")
    assert made.groups == {"staff"}
    users.take_in(change, replace(BOB, groups=frozenset({"vpn-ops", "others"})))
    assert users.find(change.connection, "bob").groups == {"ops"}
    groups.add(change, Group(name="others"))
    users.take_in(change, replace(BOB, groups=frozenset()))
    assert users.find(change.connection, "bob").groups == frozenset()


def test_what_an_administrator_decided_stays(change: Change) -> None:
    users.replace(change, replace(users.take_in(change, BOB), enabled=False, expires=5000.0))
    again = users.take_in(change, BOB)
    assert (again.enabled, again.expires) == (False, 5000.0)


def test_who_is_suspended_is_signed_out_until_they_come_back(change: Change) -> None:
    users.take_in(change, BOB)
    devices.add(change, "phone", "bob", PublicKey(bytes([1]) * 32), PresharedKey(bytes(32)))
    devices.sign_in(change, "phone")
    cookie = logins.add(change, "bob", "oidc", "192.0.2.1")
    users.suspend(change, "bob")
    assert not users.find(change.connection, "bob").is_allowed
    assert devices.find(change.connection, "phone").signed_in_at is None
    assert logins.find(change.connection, cookie, change.now) is None
    assert users.take_in(change, BOB).is_allowed


def test_a_user_is_the_subject_and_not_the_name_or_the_address(change: Change) -> None:
    users.take_in(change, BOB)
    renamed = users.take_in(change, replace(BOB, name="robert", email="robert@example.org"))
    assert (renamed.name, renamed.email) == ("bob", "robert@example.org")
    for person, whose in (
        (replace(BOB, subject="0815"), "another person of the same directory"),
        (replace(BOB, name="alice", subject="0815"), "a local user"),
    ):
        with pytest.raises(ConfigError, match=f"user {person.name}: {whose} has this name already"):
            users.take_in(change, person)
    directories.add(change, replace(CORP, name="other"), b"")
    with pytest.raises(ConfigError, match="a user of directory corp has this name already"):
        users.take_in(change, replace(BOB, source="other"))
    assert [user.name for user in users.find_all(change.connection)] == ["alice", "bob"]


def test_a_local_person_is_the_user_of_that_name(change: Change) -> None:
    assert users.take_in(change, Person(name="alice")) == User(name="alice", groups=frozenset({"staff"}))
    with pytest.raises(ConfigError, match="there is none of that name"):
        users.take_in(change, Person(name="carol"))


def test_mistakes_are_named(change: Change) -> None:
    bob = users.take_in(change, BOB)
    for attempt, why in (
        (lambda: directories.add(change, CORP, b""), "directory corp: exists already"),
        (lambda: directories.find(change.connection, "crop"), "did you mean corp"),
        (lambda: users.take_in(change, replace(BOB, source="gone")), "directory 'gone': there is none"),
        (lambda: directories.remove(change, "corp"), r"user bob comes from it, so .* \(--with-users\)"),
        (lambda: groups.remove(change, "staff"), "uses it"),
        (lambda: users.replace(change, replace(bob, groups=frozenset())), "directory corp says what groups"),
        (
            lambda: directories.replace(change, replace(CORP, settings={**CORP.settings, "issuer": "https://evil"})),
            "user bob comes from it, so its issuer cannot be changed",
        ),
        (
            lambda: directories.replace(change, replace(CORP, groups=GroupMapping(names={"a": "stuff"}))),
            "group 'stuff': there is none of that name; did you mean staff",
        ),
    ):
        with pytest.raises(ConfigError, match=why):
            attempt()


def test_a_directory_is_removed_with_its_users_only(change: Change) -> None:
    users.take_in(change, BOB)
    directories.confirm(change, "bob", b"token")
    assert directories.remove(change, "corp", with_users=True) == ["bob"]
    assert [user.name for user in users.find_all(change.connection)] == ["alice"]


def test_a_group_that_only_a_mapping_names_is_in_use(change: Change) -> None:
    directories.replace(change, replace(CORP, groups=GroupMapping(names={"a": "ops"})))
    with pytest.raises(ConfigError, match="group ops: directory corp uses it"):
        groups.remove(change, "ops")
