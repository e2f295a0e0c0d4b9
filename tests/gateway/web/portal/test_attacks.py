"""What somebody may try at the portal: others' devices, forged forms, framing, caches, and stored scripts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.gateway.web.conftest import URL
from tests.gateway.web.portal.people import Person, add_user, link_of
from wgpy.gateway.store import devices, endpoint, users
from wgpy.gateway.store.enrolment import enrol
from wgpy.gateway.web.site import Site

ODD = "<img src=x onerror=alert(1)>'\"&"


@pytest.fixture
def mallory(site: Site) -> Person:
    """Somebody else than Alice, who has a phone."""
    Person(site, "alice").add("phone")
    add_user(site.database, "mallory")
    return Person(site, "mallory")


def phone(site: Site) -> Any:
    with site.database.read() as connection:
        return devices.find(connection, "alice-phone")


@pytest.mark.parametrize("action", ["remove", "sign-in"])
def test_nobody_changes_a_device_of_somebody_else(site: Site, mallory: Person, action: str) -> None:
    before = phone(site)
    found = mallory.post(f"/devices/alice-phone/{action}")
    missing = mallory.post(f"/devices/alice-phony/{action}")
    assert found.status_code == missing.status_code == 404
    assert found.text.replace("alice-phone", "") == missing.text.replace("alice-phony", ""), "nor learns of it"
    assert phone(site) == before


def test_nobody_sees_a_device_of_somebody_else(mallory: Person) -> None:
    assert "phone" not in mallory.get("/").text


def test_nobody_adds_a_device_for_somebody_else(site: Site, mallory: Person) -> None:
    assert mallory.post("/devices/add", {"name": "x", "how": "gateway", "user": "alice"}).status_code == 200
    assert mallory.add("alice-x").status_code == 200
    with site.database.read() as connection:
        assert [device.name for device in devices.of_user(connection, "alice")] == ["alice-phone"]
        own = {device.name for device in devices.of_user(connection, "mallory")}
    assert own == {"mallory-x", "mallory-alice-x"}


def test_a_name_that_runs_into_anothers_is_refused(site: Site) -> None:
    """The device b-phone of a, and the device phone of a-b, would have one name."""
    add_user(site.database, "a")
    add_user(site.database, "a-b")
    assert Person(site, "a-b").add("phone").status_code == 200
    refused = Person(site, "a").add("b-phone")
    assert (refused.status_code, "exists already" in refused.text) == (400, True)
    assert Person(site, "a").post("/devices/a-b-phone/remove").status_code == 404


def forged(mallory: Person) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Forms and headers as another site, or another person, may make Alice's browser send them."""
    yield {}, {"Origin": "https://evil.example"}
    yield {}, {"Origin": "null"}
    yield {"csrf_token": ""}, {}
    yield {"csrf_token": mallory.token}, {}
    yield {"csrf_token": "0" * 64}, {}
    yield {}, {"Origin": f"{URL}.evil.example"}


def test_no_other_site_acts_for_somebody(site: Site, mallory: Person) -> None:
    alice = Person(site, "alice")
    before = phone(site)
    for fields, headers in forged(mallory):
        for path in ("/devices/alice-phone/remove", "/devices/alice-phone/sign-in", "/devices/add"):
            answer = alice.post(path, {"name": "y", "how": "gateway", **fields}, **headers)
            assert answer.status_code == 403, (fields, headers)
    assert alice.browser.get("/devices/alice-phone/remove").status_code == 405, "and not by a link either"
    assert phone(site) == before


def test_pages_are_not_kept_framed_or_told_to_others(site: Site) -> None:
    alice = Person(site, "alice")
    link = link_of(alice.add("tablet", "link"))
    stranger = Person(site)
    answers = [alice.get(path) for path in ("/", "/devices/add", "/reach")]
    answers += [alice.add("phone"), stranger.get(link), stranger.post(link, {"how": "gateway"}), stranger.get(link)]
    for answer in answers:
        headers = answer.headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "'unsafe" not in headers["content-security-policy"]
        assert headers["referrer-policy"] in ("same-origin", "no-referrer")


def test_what_a_request_says_of_itself_is_neither_believed_nor_shown(site: Site) -> None:
    alice = Person(site, "alice")
    alice.add("phone")
    spoofed = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP"), "10.99.0.2")
    page = alice.get("/", **spoofed, **{"User-Agent": ODD, "Referer": ODD, "Accept-Language": ODD}).text
    assert "this device" not in page
    assert "onerror" not in page


def test_what_administrators_and_directories_have_named_is_escaped(site: Site) -> None:
    """Names of devices cannot have a script; texts that others wrote might."""
    with site.database.change("root") as change:
        settings = endpoint.find(change.connection)
        endpoint.replace(change, replace(settings, banner=ODD))
        users.replace(change, replace(users.find(change.connection, "alice"), display_name=ODD, email=ODD))
        enrol(change, "laptop", "alice")
    alice = Person(site, "alice")
    for page in (alice.get("/"), alice.get("/reach"), alice.add("phone")):
        assert page.status_code == 200
        assert "<img src=x" not in page.text
    assert "laptop" in alice.get("/").text


def test_refusals_are_pages_for_people_and_have_nothing_of_theirs_in_them(site: Site) -> None:
    alice = Person(site, "alice")
    answer = alice.post(f"/devices/{ODD}/remove", Accept="text/html,*/*")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "<img src=x" not in answer.text
    assert "you have no device" in answer.text
