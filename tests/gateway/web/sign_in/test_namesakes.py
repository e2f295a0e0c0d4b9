"""What is left of a user who was reset or removed, for whoever had a part of it, and for the next user of that name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.gateway.web.sign_in.conftest import PASSWORD, Clock
from tests.gateway.web.sign_in.person import URL, Person, code_of
from tests.support.authenticator import Authenticator
from wgpy.gateway.identity import administration
from wgpy.gateway.policy import people
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.people import User
from wgpy.gateway.store import devices, directories, endpoint, links, logins, lookup, users
from wgpy.gateway.web.sign_in import methods
from wgpy.gateway.web.site import Site
from wgpy.keys import PresharedKey, PrivateKey

CORP = Directory(name="corp", kind="ldap", settings={"servers": ["ldaps://localhost"], "base": "dc=x"})


def alice_of(subject: str) -> people.Person:
    return people.Person(name="alice", source="corp", subject=subject)


def test_a_stolen_password_is_worth_nothing_once_an_administrator_has_reset_its_user(site: Site, clock: Clock) -> None:
    mallory = Person(site)
    assert mallory.type_password(PASSWORD).url.path == "/sign-in/enrol"
    clock.now += 1
    with site.database.change("root") as change:
        administration.reset(change, "alice")
    for path in ("/sign-in/enrol", "/sign-in/second"):
        assert mallory.open(path).url.path == "/sign-in"


def test_the_next_user_of_a_name_inherits_nothing(site: Site, app: str, clock: Clock) -> None:
    old, half = Person(site), Person(site)
    old.type_password(PASSWORD)
    old.send("/sign-in/second/code", code=code_of(app, clock.now))
    assert old.is_signed_in
    clock.now += 1
    half.type_password(PASSWORD)
    with site.database.change("root") as change:
        secret = links.add(change, links.SET_UP, "alice", 600.0)
        devices.add(change, "alice-phone", "alice", PrivateKey.generate().public_key, PresharedKey(bytes(32)))
        users.remove(change, "alice")
    with site.database.change("root") as change:
        users.add(change, User(name="alice"))
        assert devices.of_user(change.connection, "alice") == []
        assert logins.find_all(change.connection, "alice") == []
        assert links.find(change.connection, links.SET_UP, secret, clock.now) is None
    assert not old.is_signed_in
    assert half.open("/sign-in/second").url.path == "/sign-in"
    assert "is wrong" in Person(site).type_password(PASSWORD).text


@pytest.mark.parametrize("newcomer", [alice_of("another entry"), None], ids=["of the directory", "local"])
def test_half_a_sign_in_is_not_for_a_namesake(
    site: Site, newcomer: people.Person | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site.database.change("root") as change:
        users.remove(change, "alice")
        directories.add(change, CORP, b"")
        former = users.take_in(change, alice_of("an entry"))
        administration.set_up_app(change, former.name)
    monkeypatch.setitem(methods.PASSWORDS, "ldap", lambda *_: alice_of("an entry"))
    alice = Person(site)
    assert alice.type_password("hers").url.path == "/sign-in/second"
    assert alice.open("/sign-in/second").status_code == 200
    with site.database.change("root") as change:
        users.remove(change, "alice")
        if newcomer:
            users.take_in(change, newcomer)
        else:
            users.add(change, User(name="alice"))
    assert alice.open("/sign-in/enrol").url.path == "/sign-in"


def test_a_passkey_alone_lets_nobody_past_their_directory(
    site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that cannot be asked again, as OpenID Connect without a refresh token, would never say no."""
    with site.database.change("root") as change:
        users.remove(change, "alice")
        directories.add(change, CORP, b"")
        endpoint.replace(change, replace(endpoint.find(change.connection), second_factor=False))
    monkeypatch.setitem(methods.PASSWORDS, "ldap", lambda *_: alice_of("an entry"))
    alice, key = Person(site), Authenticator(URL)
    alice.type_password("hers")
    alice.open("/account/factors")
    alice.answer("/account/passkeys", key, name="key")
    assert alice.is_signed_in
    clock.now += 1  # a passkey answers a later question each time
    other = Person(site)
    other.open("/sign-in")
    assert "known by the directory corp" in other.answer("/sign-in/passkey", key).text
    assert not other.is_signed_in
    clock.now += 1
    other.type_password("hers")
    other.answer("/sign-in/second/passkey", key)  # after the directory has vouched for her
    assert other.is_signed_in


@pytest.mark.parametrize(("kind", "is_offered"), [("ldap", True), ("oidc", False)])
def test_a_second_factor_is_offered_to_those_only_who_are_asked_for_it(site: Site, kind: str, is_offered: bool) -> None:
    alice = Person(site)
    with site.database.change("root") as change:
        users.remove(change, "alice")
        directories.add(change, replace(CORP, kind=kind), b"")
        users.take_in(change, alice_of("an entry"))
        cookie = logins.add(change, "alice", "directory corp", "192.0.2.9")
    alice.client.cookies.set("__Host-wgpy", cookie, domain="vpn.example.org", path="/")
    assert ("Add a passkey" in alice.open("/account").text) is is_offered


def test_a_name_that_nobody_has_is_not_compared_with_all_names(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """To suggest a similar name takes longer than to hash a password, if there are many."""
    monkeypatch.setattr(lookup, "missing", lambda *_: pytest.fail("names were compared"))
    assert Person(site).type_password("wrong", "nobody").status_code == 403
