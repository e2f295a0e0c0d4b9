"""Signing in and out by a provider of OpenID Connect, in a browser; and attacks on that. Each test is one try."""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import pytest

from tests.gateway.identity.oidc.fake import ISSUER, SETTINGS, Fake
from tests.gateway.web.sign_in.conftest import Clock
from tests.gateway.web.sign_in.person import Person
from wgpy.gateway.identity.oidc.provider import PATIENCE
from wgpy.gateway.policy.directories import Directory, GroupMapping
from wgpy.gateway.policy.people import User
from wgpy.gateway.policy.throttle import BY_ADDRESS
from wgpy.gateway.store import audit, devices, directories, users
from wgpy.gateway.web.site import Site
from wgpy.keys import PresharedKey, PublicKey

START = "/sign-in/directory/corp"
CORP = Directory(name="corp", kind="oidc", settings=SETTINGS.json(), groups=GroupMapping(names={"vpn-users": "staff"}))


@pytest.fixture
def fake(site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The provider of the directory corp."""
    with site.database.change("root") as change:
        directories.add(change, CORP, b"a secret")
    made = Fake()
    made.now = clock.now
    made.claims = {"preferred_username": "bob"}
    monkeypatch.setattr("wgpy.gateway.identity.directory.client", made.client)
    return made


@pytest.fixture
def bob(site: Site, fake: Fake) -> Person:
    return Person(site)


def go(person: Person, fake: Fake, path: str = START) -> dict[str, str]:
    """Follow the link to the provider, and sign in there. Returns what the browser is sent back with."""
    sent = person.client.get(path)
    assert sent.status_code == 303, sent.text
    assert sent.headers["location"].startswith(f"{ISSUER}/auth?")
    query = dict(parse_qsl(urlsplit(sent.headers["location"]).query))
    fake.codes["a code"] = query
    return {"code": "a code", "state": query["state"]}


def come_back(person: Person, answer: dict[str, str], directory: str = "corp") -> httpx2.Response:
    return person.client.get(f"/sign-in/directory/{directory}/callback?{urlencode(answer)}")


def user(site: Site, name: str = "bob") -> User:
    with site.database.read() as connection:
        return users.find(connection, name)


def test_somebody_who_comes_for_the_first_time_is_a_user_of_the_directory(bob: Person, fake: Fake, site: Site) -> None:
    page = bob.client.get("/sign-in?next=/account").text
    assert f'href="{START}?next=/account"' in page
    answer = come_back(bob, go(bob, fake, f"{START}?next=/account"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    assert bob.is_signed_in
    assert user(site) == User(name="bob", source="corp", subject="4711", groups=frozenset({"staff"}))
    with site.database.read() as connection:
        assert directories.token(connection, site.database.vault, "bob")
        entry = audit.find_last(connection, 1)[0]
    assert (entry["who"], entry["kind"], entry["after"]["strength"]) == ("user bob", "login", "directory corp")


def test_the_device_that_the_person_comes_from_is_signed_in(fake: Fake, site: Site) -> None:
    first = Person(site)
    come_back(first, go(first, fake))
    with site.database.change("root") as change:
        device = devices.add(change, "phone", "bob", PublicKey(bytes([1]) * 32), PresharedKey(bytes(32)))
    there = Person(site, str(device.addresses[0]))
    come_back(there, go(there, fake))
    with site.database.read() as connection:
        assert devices.find(connection, "phone").signed_in_at is not None
        assert ip_address("10.99.0.2") in device.addresses


def test_an_answer_without_the_browser_that_asked_is_refused_and_the_provider_is_not_asked(
    bob: Person, fake: Fake, site: Site
) -> None:
    answer, mallory = go(bob, fake), Person(site, "198.51.100.1")
    refused = come_back(mallory, answer)  # a link that somebody was made to open
    assert refused.status_code == 403
    assert "began in another browser" in refused.text
    go(mallory, fake)
    assert "not to the question that this browser asked" in come_back(mallory, answer).text
    assert not mallory.is_signed_in
    assert fake.asked["/token"] == 0


def test_an_answer_is_good_once(bob: Person, fake: Fake, site: Site) -> None:
    answer = go(bob, fake)
    come_back(bob, answer)
    assert come_back(bob, answer).status_code == 403
    assert fake.asked["/token"] == 1


def test_an_attempt_lasts_ten_minutes(bob: Person, fake: Fake, clock: Clock) -> None:
    answer = go(bob, fake)
    clock.now += PATIENCE
    assert "took too long" in come_back(bob, answer).text
    assert not bob.is_signed_in


def test_what_the_browser_keeps_says_nothing_and_cannot_be_changed(bob: Person, fake: Fake) -> None:
    answer = go(bob, fake)
    cookie = bob.client.cookies["__Host-wgpy-away"]
    assert answer["state"] not in cookie
    bob.client.cookies.set("__Host-wgpy-away", cookie[:-4] + "AAAA", domain="vpn.example.org")
    assert come_back(bob, answer).status_code == 403
    assert not bob.is_signed_in


def test_an_answer_to_another_directory_is_refused(bob: Person, fake: Fake, site: Site) -> None:
    with site.database.change("root") as change:
        directories.add(change, replace(CORP, name="other"), b"a secret")
    answer = go(bob, fake)
    assert "took too long, or began elsewhere" in come_back(bob, answer, "other").text
    assert fake.asked["/token"] == 0
    assert not bob.is_signed_in


def test_only_pages_of_this_site_are_gone_on_to(bob: Person, fake: Fake) -> None:
    for path in ("//evil.example", "https://evil.example/", "/\\evil.example"):
        answer = come_back(bob, go(bob, fake, f"{START}?{urlencode({'next': path})}"))
        assert answer.headers["location"] == "/"


def test_what_an_answer_says_does_not_get_into_the_page(bob: Person, fake: Fake) -> None:
    state = go(bob, fake)["state"]
    refused = come_back(bob, {"state": state, "error": "<script>alert(1)</script>", "error_description": "call 0900"})
    assert refused.status_code == 403
    assert "does not sign you in (it does not say why)" in refused.text
    assert "<script>alert" not in refused.text
    assert "0900" not in refused.text


def test_a_provider_that_is_down_or_lies_is_one_line_here_and_the_details_are_in_the_log(
    bob: Person, fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    fake.claims = {"iss": "https://evil.example"}
    answer = come_back(bob, go(bob, fake))
    assert answer.status_code == 503
    assert "corp cannot be asked at this moment. Try again in a minute." in answer.text
    assert "evil" not in answer.text
    assert "directory corp: its ID token cannot be believed: invalid_claim: iss" in caplog.text
    assert not bob.is_signed_in


def test_a_name_that_is_somebody_elses_is_refused_in_one_sentence(bob: Person, fake: Fake, site: Site) -> None:
    fake.claims = {"preferred_username": "alice"}
    answer = come_back(bob, go(bob, fake))
    assert answer.status_code == 403
    assert "User alice: a local user has this name already" in answer.text
    assert not bob.is_signed_in
    assert user(site, "alice").source == "local"


def test_whom_an_administrator_has_disabled_the_directory_does_not_let_in(bob: Person, fake: Fake, site: Site) -> None:
    come_back(bob, go(bob, fake))
    with site.database.change("root") as change:
        users.replace(change, replace(user(site), enabled=False))
    assert not bob.is_signed_in
    answer = come_back(bob, go(bob, fake))
    assert answer.status_code == 403
    assert "bob is disabled" in answer.text
    assert not bob.is_signed_in


def test_answers_are_throttled_by_address(bob: Person, fake: Fake) -> None:
    statuses = [come_back(bob, {**go(bob, fake), "code": "guessed"}).status_code for _ in range(BY_ADDRESS.burst + 5)]
    assert statuses[0] == 403
    assert statuses[-1] == 429
    assert fake.asked["/token"] <= BY_ADDRESS.burst


@pytest.mark.parametrize("path", ["/sign-in/directory/none", "/sign-in/directory/none/callback?code=a&state=b"])
def test_a_directory_that_is_not_there_is_not_found(bob: Person, path: str) -> None:
    assert bob.client.get(path).status_code in (403, 404)


def test_no_secret_gets_into_the_log(bob: Person, fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "wgpy")
    answer = go(bob, fake)
    come_back(bob, answer)
    come_back(bob, {**go(bob, fake), "code": "guessed"})
    for secret in ("a secret", "a code", answer["state"], "refresh 1", "an access token"):
        assert secret not in caplog.text


def test_who_signs_out_here_can_sign_out_there_as_well(bob: Person, fake: Fake) -> None:
    come_back(bob, go(bob, fake))
    bob.open("/account")
    bob.send("/sign-out")
    assert "You may still be signed in at corp." in bob.page.text
    sent = bob.client.get("/sign-in/directory/corp/sign-out")
    assert sent.headers["location"].startswith(f"{ISSUER}/logout?ui=plain&")
    query = dict(parse_qsl(urlsplit(sent.headers["location"]).query))
    assert query["post_logout_redirect_uri"] == "https://vpn.example.org/sign-in"
    assert query["id_token_hint"]
    assert bob.client.get("/sign-in/directory/corp/sign-out").headers["location"] == "/sign-in"  # once
    assert "still be signed in" not in bob.open("/sign-in").text


def test_signing_out_there_without_having_signed_out_here_leads_nowhere(bob: Person, fake: Fake) -> None:
    assert bob.client.get("/sign-in/directory/corp/sign-out").headers["location"] == "/sign-in"
