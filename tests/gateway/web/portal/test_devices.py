"""People add, sign in and remove their own devices."""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest

from tests.gateway.web.portal.people import KEY, Person, add_user, file_of, link_of, stored
from wgpy.config.wgquick import parse
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.store import audit, devices, endpoint, rules
from wgpy.gateway.web.site import Site


def set_endpoint(site: Site, **values: Any) -> None:
    with site.database.change("root") as change:
        endpoint.replace(change, replace(endpoint.find(change.connection), **values))


def names(site: Site) -> list[str]:
    with site.database.read() as connection:
        return [device.name for device in devices.find_all(connection)]


@pytest.fixture
def alice(site: Site) -> Person:
    return Person(site, "alice")


def test_nobody_sees_anything_without_signing_in(site: Site) -> None:
    stranger = Person(site)
    for path in ("/", "/devices/add", "/reach"):
        answer = stranger.get(path)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/sign-in")
    for path in ("/devices/add", "/devices/alice-phone/remove", "/devices/alice-phone/sign-in"):
        assert stranger.post(path, {"name": "phone", "how": "gateway"}).status_code == 303
    assert names(site) == []


def test_a_device_is_added_with_a_key_that_is_shown_once_and_stored_nowhere(site: Site, alice: Person) -> None:
    answer = alice.add("phone")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    text = file_of(answer)
    config = parse(text).config
    assert config.private_key
    with site.database.read() as connection:
        device = devices.find(connection, "alice-phone")
        (entry,) = [each for each in audit.find_last(connection, 100) if each["kind"] == "device"]
    assert device.user == "alice"
    assert config.private_key.public_key == device.public_key
    assert entry["who"] == "user alice"
    (saved,) = re.findall(r'href="data:application/octet-stream;base64,([^"]+)" download="phone.conf"', answer.text)
    assert b64decode(saved).decode() == text
    assert device.public_key.base64() in stored(site)
    for secret in (config.private_key.base64(), repr(bytes(config.private_key))[2:-1]):
        assert secret not in stored(site)
    page = alice.get("/").text
    assert "phone" in page
    assert "10.99.0.2" in page
    assert config.private_key.base64() not in page


def test_a_device_is_added_with_the_key_that_its_owner_has(site: Site, alice: Person) -> None:
    text = file_of(alice.add("laptop", "mine", public_key=f" {KEY} "))
    assert "PrivateKey = the private key" in text
    assert parse(text).config.private_key is None
    with site.database.read() as connection:
        assert devices.find(connection, "alice-laptop").public_key.base64() == KEY


def test_the_browsers_script_gets_the_file_without_a_private_key_as_json(alice: Person) -> None:
    answer = alice.post("/devices/add", {"name": "tablet", "how": "here", "public_key": KEY}, Accept="application/json")
    assert answer.json()["file_name"] == "tablet.conf"
    assert re.search(r"^\[Interface\]$", answer.json()["file"], re.M)
    assert "PrivateKey = " not in answer.json()["file"].replace("# Add a line to [Interface]: PrivateKey = ", "")
    again = alice.post("/devices/add", {"name": "other", "how": "here", "public_key": KEY}, Accept="application/json")
    assert (again.status_code, again.json()["detail"]) == (400, "public key: it is in use already; make another key")


@pytest.mark.parametrize(
    ("name", "how", "key", "said"),
    [
        ("", "gateway", "", "expected a name"),
        ("<script>alert(1)</script>", "gateway", "", "expected a name"),
        ("../../etc/passwd", "gateway", "", "expected a name"),
        ("x" * 61, "gateway", "", "it has 61 characters, and 60 is the most"),
        ("phone", "gateway", "", "exists already"),
        ("other", "", "", "choose who makes the key"),
        ("other", "mine", "", "a key is 44 base64 characters"),
        ("other", "mine", KEY[:-2] + "h=", "a key is 44 base64 characters"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_changed(
    site: Site, alice: Person, name: str, how: str, key: str, said: str
) -> None:
    alice.add("phone")
    answer = alice.add(name, how, public_key=key)
    assert answer.status_code == 400
    assert said in answer.text
    assert "<script>" not in answer.text
    assert names(site) == ["alice-phone"]


def test_people_have_as_many_devices_as_they_may(site: Site, alice: Person) -> None:
    set_endpoint(site, devices_max=3)
    alice.add("one")
    assert link_of(alice.add("two", "link"))
    assert link_of(alice.add("two", "link")), "another link for the same device"
    alice.add("three")
    refused = alice.add("four")
    assert refused.status_code == 400
    assert "of the 3 that a person may have" in refused.text
    assert names(site) == ["alice-one", "alice-three"]
    add_user(site.database, "bob")
    assert Person(site, "bob").add("one").status_code == 200


def test_too_many_attempts_have_to_wait(alice: Person) -> None:
    answers = [alice.add("<") for _ in range(11)]
    assert "too often" in answers[10].text
    assert "too often" not in answers[9].text


def test_a_removed_device_is_gone(site: Site, alice: Person) -> None:
    alice.add("phone")
    answer = alice.post("/devices/alice-phone/remove")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert names(site) == []
    assert alice.said() == "phone is removed."
    assert alice.said() == ""


def test_the_device_that_one_looks_from_is_named(site: Site) -> None:
    Person(site, "alice").add("phone")
    assert "this device" not in Person(site, "alice").get("/").text
    assert "this device" in Person(site, "alice", "10.99.0.2").get("/").text


def test_a_device_is_signed_in_from_when_its_person_proved_who_they_are(site: Site) -> None:
    set_endpoint(site, sign_in=True, session_max=600)
    alice = Person(site, "alice", "10.99.0.2")  # at 1000
    alice.add("phone")
    assert "10 min left" in alice.get("/").text, "who adds a device has just signed in"
    with site.database.change("root") as change:
        devices.sign_out(change, "alice")
    assert "session of this device has ended" in alice.get("/").text
    site.database.clock = lambda: 1100.0
    assert alice.post("/devices/alice-phone/sign-in").status_code == 303
    assert alice.said() == "phone is signed in."
    with site.database.read() as connection:
        assert devices.find(connection, "alice-phone").signed_in_at == 1000.0
    assert "10 min left" in alice.get("/").text
    assert "/devices/alice-phone/sign-in" not in alice.get("/").text, "nothing is to be gained"
    site.database.clock = lambda: 1601.0  # the sign-in in the browser is still good, but lets no device in any more
    alice.post("/devices/alice-phone/sign-in")
    assert alice.said().startswith("You signed in too long ago")


def test_an_older_sign_in_does_not_shorten_a_session(site: Site, alice: Person) -> None:
    set_endpoint(site, sign_in=True)
    alice.add("phone")
    with site.database.change("root") as change:
        devices.sign_in(change, "alice-phone", 1010.0)
    alice.post("/devices/alice-phone/sign-in")
    with site.database.read() as connection:
        assert devices.find(connection, "alice-phone").signed_in_at == 1010.0


def test_people_see_what_they_may_reach(site: Site, alice: Person) -> None:
    wanted = [("net", "10.0.0.0/8", "staff"), ("ops", "10.1.0.0/16", "ops"), ("web", "192.0.2.5:443/tcp", "staff")]
    with site.database.change("root") as change:
        for name, text, group in wanted:
            rules.add(change, Rule(name=name, destination=Destination.parse(text), groups=frozenset({group})))
    page = alice.get("/reach").text
    for text in ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.5/32", "443/tcp", "10.99.0.0/29"):
        assert text in page
    assert "ops" not in page, "which groups others are in is no concern of hers"
