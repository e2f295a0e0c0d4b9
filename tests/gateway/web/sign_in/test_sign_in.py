"""Signing in: by password and a second factor, by a passkey alone, by a link; and what people change themselves."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.gateway.web.sign_in.conftest import PASSWORD, Clock
from tests.gateway.web.sign_in.person import URL, Form, Person, code_of
from tests.support.authenticator import Authenticator
from wgpy.gateway.policy.people import User
from wgpy.gateway.store import audit, credentials, devices, endpoint, links, passkeys, users
from wgpy.gateway.web.site import Site
from wgpy.keys import PresharedKey, PublicKey

NEW = "another good password"


def needs_no_second_factor(site: Site) -> None:
    with site.database.change("root") as change:
        endpoint.replace(change, replace(endpoint.find(change.connection), second_factor=False))


def last_entries(site: Site, kind: str) -> list[tuple[str, str, object]]:
    with site.database.read() as connection:
        entries = audit.find_last(connection, 100)
    return [(each["who"], each["name"], each["after"]) for each in entries if each["kind"] == kind]


def test_a_password_and_a_code_sign_in(site: Site, alice: Person, app: str, clock: Clock) -> None:
    page = alice.type_password(PASSWORD)
    assert "One more step, alice" in page.text
    assert not alice.is_signed_in
    alice.send("/sign-in/second/code", code=code_of(app, clock.now))
    assert alice.is_signed_in
    assert last_entries(site, "login") == [
        ("user alice", "alice", {"user": "alice", "made_at": 1e6, "strength": "password, totp", "address": "192.0.2.9"})
    ]


def test_a_password_is_enough_only_where_the_endpoint_says_so(site: Site, alice: Person) -> None:
    assert "Set up a second factor" in alice.type_password(PASSWORD).text
    needs_no_second_factor(site)
    alice.type_password(PASSWORD)
    assert alice.is_signed_in


def test_who_has_a_second_factor_is_asked_for_it_in_any_case(site: Site, alice: Person, app: str) -> None:
    needs_no_second_factor(site)
    assert "One more step" in alice.type_password(PASSWORD).text
    assert not alice.is_signed_in


def test_an_app_is_set_up_after_the_first_password(site: Site, alice: Person, clock: Clock) -> None:
    page = alice.type_password(PASSWORD)
    assert 'src="data:image/svg+xml' in page.text
    seed = page.text.partition("app: <code>")[2].partition("<")[0]
    page = alice.send("/sign-in/enrol/totp", code="000000")
    assert page.status_code == 403
    assert seed in page.text, "the app that was scanned stays good after a mistyped code"
    page = alice.send("/sign-in/enrol/totp", code=code_of(seed, clock.now))
    assert alice.is_signed_in
    codes = page.text.partition("<pre>")[2].partition("</pre>")[0].split()
    assert len(codes) == 10
    clock.now += 30
    again = Person(site)
    again.type_password(PASSWORD)
    again.send("/sign-in/second/code", code=code_of(seed, clock.now))
    assert again.is_signed_in
    third = Person(site)
    third.type_password(PASSWORD)
    third.send("/sign-in/second/code", code=codes[3].upper().replace("-", ""))
    assert third.is_signed_in


def test_a_passkey_is_set_up_and_then_signs_in_alone_and_beside_the_password(
    site: Site, alice: Person, clock: Clock
) -> None:
    key = Authenticator(URL)
    alice.type_password(PASSWORD)
    alice.answer("/sign-in/enrol/passkey", key, name="laptop")
    assert alice.is_signed_in
    clock.now += 1
    alone = Person(site)
    alone.open("/sign-in?next=/account")
    page = alone.answer("/sign-in/passkey", key)
    assert "Passkey “laptop”" in page.text
    clock.now += 1
    beside = Person(site)
    beside.type_password(PASSWORD)
    beside.answer("/sign-in/second/passkey", key)
    assert beside.is_signed_in
    strengths = [after["strength"] for _, _, after in last_entries(site, "login") if isinstance(after, dict)]
    assert strengths == ["password, passkey", "passkey", "password, passkey"]


def test_a_link_lets_somebody_choose_a_password_once(site: Site, clock: Clock) -> None:
    with site.database.change("root") as change:
        users.add(change, User(name="bob"))
        path = f"/set-up/{links.add(change, links.SET_UP, 'bob', 60.0)}"
    bob = Person(site)
    assert "Welcome, bob" in bob.open(path).text
    for password, again, why in (
        ("short", "short", "too short"),
        ("my name is Bob!", "my name is Bob!", "contains the user"),
        (NEW, NEW + "x", "not the same"),
    ):
        page = bob.send(path, password=password, again=again)
        assert page.status_code == 400
        assert why in page.text
    assert "Set up a second factor" in bob.send(path, password=NEW, again=NEW).text
    bob.answer("/sign-in/enrol/passkey", Authenticator(URL), name="")
    assert bob.is_signed_in
    assert "was used already" in Person(site).open(path).text


def test_the_device_from_which_somebody_signs_in_is_signed_in_and_nobody_elses(site: Site, app: str) -> None:
    needs_no_second_factor(site)
    with site.database.change("root") as change:
        credentials.remove_totp(change, "alice")
        users.add(change, User(name="bob"))
        mine = devices.add(change, "phone", "alice", PublicKey(b"1" * 32), PresharedKey(b"1" * 32))
        theirs = devices.add(change, "tablet", "bob", PublicKey(b"2" * 32), PresharedKey(b"2" * 32))
    for device in (mine, theirs):
        person = Person(site, str(device.addresses[0]))
        person.type_password(PASSWORD)
        assert person.is_signed_in
    with site.database.read() as connection:
        assert devices.find(connection, "phone").signed_in_at == 1e6
        assert devices.find(connection, "tablet").signed_in_at is None
        assert devices.at(connection, ip_address("10.99.0.6")) is None


def test_somebody_adds_and_removes_factors_and_keeps_one(site: Site, alice: Person, app: str, clock: Clock) -> None:
    key = Authenticator(URL)
    alice.type_password(PASSWORD)
    alice.send("/sign-in/second/code", code=code_of(app, clock.now))
    alice.open("/account/factors")
    assert "The passkey is added." in alice.answer("/account/passkeys", key, name="<b>key</b>").text
    assert "Passkey “&lt;b&gt;key&lt;/b&gt;”" in alice.page.text, "what people call things is text"
    assert "The authenticator app is removed." in alice.send("/account/totp/remove").text
    page = alice.send("/account/passkeys/remove")
    assert page.status_code == 409
    with site.database.read() as connection:
        assert len(passkeys.find_all(connection, "alice")) == 1, "the last one stays"
    needs_no_second_factor(site)
    alice.open("/account")
    assert "The passkey is removed." in alice.send("/account/passkeys/remove").text


def test_somebody_changes_the_password(site: Site, alice: Person, app: str, clock: Clock) -> None:
    other = Person(site)
    for person in (alice, other):
        clock.now += 30
        person.type_password(PASSWORD)
        person.send("/sign-in/second/code", code=code_of(app, clock.now))
    former = alice.cookie
    alice.open("/account")
    page = alice.send("/account/password", current="wrong", password=NEW, again=NEW)
    assert "The current password is wrong." in page.text
    page = alice.send("/account/password", current=PASSWORD, password=NEW, again=NEW)
    assert "The password is changed" in page.text
    assert alice.cookie != former
    assert not other.is_signed_in
    assert "wrong" in other.type_password(PASSWORD).text
    assert "One more step" in other.type_password(NEW).text


@pytest.mark.parametrize("url", ["https://192.0.2.1", "https://[2001:db8::1]:8443"])
def test_a_site_without_a_name_offers_no_passkeys(site: Site, url: str) -> None:
    with site.database.change("root") as change:
        endpoint.replace(change, replace(endpoint.find(change.connection), url=url))
        settings = endpoint.find(change.connection)
    person = Person(replace(site, service=replace(site.service, endpoint=settings)))  # type: ignore[type-var]
    person.client.headers.update({"Origin": url, "Host": url.removeprefix("https://")})
    assert "/sign-in/passkey" not in Form(person.open("/sign-in").text).fields
    person.send("/sign-in", name="alice", password=PASSWORD)
    assert list(Form(person.page.text).fields) == ["/sign-in/enrol/totp"]
