"""Attacks on signing in. Each test is one try."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from ipaddress import ip_address
from urllib.parse import quote

import pytest
from sqlalchemy import func, select

from tests.gateway.identity.test_passwords import Counting
from tests.gateway.web.sign_in.conftest import CODES, PASSWORD, Clock
from tests.gateway.web.sign_in.person import URL, Form, Person, code_of
from tests.support.authenticator import Authenticator
from wgpy.gateway.identity import passwords
from wgpy.gateway.policy.logins import FRESH, IDLE_MAX, LIFETIME
from wgpy.gateway.policy.people import User
from wgpy.gateway.policy.throttle import BY_ACCOUNT, BY_ADDRESS
from wgpy.gateway.store import credentials, endpoint, links, logins, passkeys, schema, users
from wgpy.gateway.web.site import Site

NEW = "another good password"


@pytest.fixture
def signed_in(alice: Person, app: str, clock: Clock) -> Person:
    sign_in(alice, app, clock)
    return alice


def sign_in(person: Person, app: str, clock: Clock) -> None:
    clock.now += 30  # a code is good once
    person.type_password(PASSWORD)
    person.send("/sign-in/second/code", code=code_of(app, clock.now))
    assert person.is_signed_in


def bob_with_passkey(site: Site) -> tuple[Person, Authenticator]:
    with site.database.change("root") as change:
        users.add(change, User(name="bob"))
        path = f"/set-up/{links.add(change, links.SET_UP, 'bob', 60.0)}"
    bob, key = Person(site), Authenticator(URL)
    bob.open(path)
    bob.send(path, password=NEW, again=NEW)
    bob.answer("/sign-in/enrol/passkey", key, name="key")
    assert bob.is_signed_in
    return bob, key


def test_a_cookie_that_somebody_has_planted_is_good_for_nothing_after_the_sign_in(
    site: Site, alice: Person, app: str, clock: Clock
) -> None:
    mallory, _ = bob_with_passkey(site)
    for planted in ("chosen by mallory", mallory.cookie):
        alice.client.cookies.set("__Host-wgpy", planted, domain="vpn.example.org", path="/")
        sign_in(alice, app, clock)
        assert alice.cookie != planted
        other = Person(site)
        other.client.cookies.set("__Host-wgpy", planted, domain="vpn.example.org", path="/")
        assert not other.is_signed_in
    assert not mallory.is_signed_in


def test_each_sign_in_has_a_cookie_of_its_own_that_scripts_and_other_sites_do_not_get(
    site: Site, alice: Person, app: str, clock: Clock
) -> None:
    alice.open("/sign-in")
    half = alice.client.post("/sign-in", data={"name": "alice", "password": PASSWORD}).headers["set-cookie"]
    alice.open("/sign-in/second")
    whole = alice.client.post("/sign-in/second/code", data={"code": code_of(app, clock.now)}).headers.get_list(
        "set-cookie"
    )
    for header, name, same_site in ((half, "__Host-wgpy-half", "strict"), (whole[-1], "__Host-wgpy", "lax")):
        first, *flags = [each.strip().lower() for each in header.split(";")]
        assert first.startswith(f"{name.lower()}=")
        assert {"secure", "httponly", "path=/", f"samesite={same_site}"} <= {*flags}
        assert not any(each.startswith("domain") for each in flags)
    assert "__Host-wgpy-half" not in alice.client.cookies, "it is forgotten when it has served"


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {}])
def test_another_site_cannot_sign_anybody_in_or_change_anything(
    site: Site, signed_in: Person, headers: dict[str, str]
) -> None:
    page = signed_in.open("/account")
    fields = {**Form(page.text).fields["/account/password"], "current": PASSWORD, "password": NEW, "again": NEW}
    del signed_in.client.headers["Origin"]
    for path in ("/sign-in", "/sign-in/passkey", "/account/password", "/sign-out", "/account/sign-out"):
        assert signed_in.client.post(path, data=fields, headers=headers).status_code == 403
    assert signed_in.is_signed_in


def test_a_form_without_the_token_of_this_sign_in_changes_nothing(site: Site, signed_in: Person) -> None:
    bob, _ = bob_with_passkey(site)
    theirs = Form(bob.open("/account").text).fields["/account/sign-out"]["csrf_token"]
    for token in ("", theirs, "0" * 64):
        assert signed_in.client.post("/account/sign-out", data={"csrf_token": token}).status_code == 403
    assert signed_in.is_signed_in


def test_a_code_that_somebody_has_seen_is_good_for_nothing_after_it_was_used(
    site: Site, alice: Person, app: str, clock: Clock
) -> None:
    sign_in(alice, app, clock)
    mallory = Person(site)
    mallory.type_password(PASSWORD)
    for late in (0.0, 29.0, -30.0):
        page = mallory.send("/sign-in/second/code", code=code_of(app, clock.now + min(late, 0)))
        assert page.status_code == 403
    mallory.send("/sign-in/second/code", code=CODES[0])
    assert mallory.is_signed_in
    third = Person(site)
    third.type_password(PASSWORD)
    assert third.send("/sign-in/second/code", code=CODES[0]).status_code == 403, "nor is a recovery code"


def test_a_code_that_set_an_app_up_cannot_sign_in(site: Site, alice: Person, clock: Clock) -> None:
    page = alice.type_password(PASSWORD)
    code = code_of(page.text.partition("app: <code>")[2].partition("<")[0], clock.now)
    alice.send("/sign-in/enrol/totp", code=code)
    mallory = Person(site)
    mallory.type_password(PASSWORD)
    assert mallory.send("/sign-in/second/code", code=code).status_code == 403


def test_a_recorded_answer_of_a_passkey_is_good_once_even_if_the_authenticator_does_not_count(
    site: Site, clock: Clock
) -> None:
    _, key = bob_with_passkey(site)
    clock.now += 1
    key._step = 0
    person = Person(site)
    page = person.open("/sign-in")
    form = Form(page.text)
    recorded = {**form.fields["/sign-in/passkey"], "answer": key.get(form.options["/sign-in/passkey"])}
    assert person.client.post("/sign-in/passkey", data=recorded).status_code == 303
    assert Person(site).client.post("/sign-in/passkey", data=recorded).status_code == 403
    older = Form(Person(site).open("/sign-in").text)
    clock.now += 5
    person.open("/sign-in")
    person.answer("/sign-in/passkey", key)
    late = {**older.fields["/sign-in/passkey"], "answer": key.get(older.options["/sign-in/passkey"])}
    assert Person(site).client.post("/sign-in/passkey", data=late).status_code == 403


def test_a_page_that_was_open_for_too_long_asks_again(site: Site, clock: Clock) -> None:
    _, key = bob_with_passkey(site)
    person = Person(site)
    person.open("/sign-in")
    clock.now += 601
    assert person.answer("/sign-in/passkey", key).status_code == 403
    person.answer("/sign-in/passkey", key)
    assert person.is_signed_in


def test_a_passkey_proves_nothing_beside_another_users_password(site: Site, alice: Person, clock: Clock) -> None:
    _, key = bob_with_passkey(site)
    clock.now += 1
    own = Authenticator(URL)
    alice.type_password(PASSWORD)
    alice.answer("/sign-in/enrol/passkey", own)
    clock.now += 1
    mallory = Person(site)
    mallory.type_password(PASSWORD)
    assert mallory.answer("/sign-in/second/passkey", key).status_code == 403
    assert not mallory.is_signed_in


def test_a_ticket_is_good_for_its_own_step_and_user_only(site: Site, signed_in: Person) -> None:
    bob, _ = bob_with_passkey(site)
    mine = Form(signed_in.open("/account/factors").text)
    theirs = Form(bob.open("/account/factors").text)
    for path, fields in (("/account/passkeys", theirs.fields), ("/account/totp", theirs.fields)):
        other = "/account/totp" if path == "/account/passkeys" else "/account/passkeys"
        for ticket in (fields[path]["ticket"], mine.fields[other]["ticket"], "", "junk"):
            answer = Authenticator(URL).create(mine.options["/account/passkeys"])
            data = {**mine.fields[path], "ticket": ticket, "answer": answer, "code": "000000"}
            assert signed_in.client.post(path, data=data).status_code == 403


def test_nobody_removes_anothers_passkey(site: Site, signed_in: Person) -> None:
    bob_with_passkey(site)
    token = Form(signed_in.open("/account").text).fields["/account/sign-out"]["csrf_token"]
    with site.database.read() as connection:
        (theirs,) = passkeys.find_all(connection, "bob")
    answer = signed_in.client.post("/account/passkeys/remove", data={"csrf_token": token, "id": theirs.id})
    assert answer.status_code == 400
    with site.database.read() as connection:
        assert passkeys.find_all(connection, "bob") == [theirs]


def test_who_exists_cannot_be_seen_from_answers_or_their_cost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    monkeypatch.setattr(passwords, "PasswordHasher", lambda **parameters: counting)
    site = replace(site, hasher=passwords.Hasher())
    with site.database.change("root") as change:
        users.add(change, User(name="gone", enabled=False))
        credentials.set_password(change, "gone", site.hasher.hash(PASSWORD))
        users.add(change, User(name="never-set-up"))
    seen = set()
    for name in ("alice", "gone", "never-set-up", "nobody", "\x01", "' OR 1=1 --", ""):
        counting.hashed = 0
        page = Person(site).type_password("wrong", name)
        shown = re.sub(r'value="[^"]*"|data-options="[^"]*"', "", page.text)  # the name again, and what is random
        seen.add((page.status_code, shown, counting.hashed))
    ((status, shown, hashed),) = seen
    assert (status, hashed) == (403, 1)
    assert "The name or the password is wrong." in shown


def test_a_disabled_user_learns_so_only_with_the_right_password(site: Site, alice: Person) -> None:
    with site.database.change("root") as change:
        users.replace(change, replace(users.find(change.connection, "alice"), enabled=False))
    assert "is wrong" in alice.type_password("wrong").text
    page = alice.type_password(PASSWORD)
    assert page.status_code == 403
    assert "disabled" in page.text
    assert not alice.is_signed_in


def test_guessing_one_account_from_many_addresses_is_stopped_even_with_the_right_password(
    site: Site, app: str, clock: Clock
) -> None:
    alice = Person(site, "198.51.100.1")
    sign_in(alice, app, clock)
    for number in range(BY_ACCOUNT.burst):
        name = "alice" if number % 2 else "ALICE"  # directories know both, so they are one account
        assert Person(site, f"203.0.113.{number}").type_password("wrong", name).status_code == 403
    page = Person(site, "203.0.113.99").type_password(PASSWORD)
    assert page.status_code == 429
    assert "Try again in" in page.text
    sign_in(Person(site, "198.51.100.1"), app, clock)  # she comes from where she was before


def test_guessing_many_accounts_from_one_address_is_stopped(site: Site) -> None:
    person = Person(site)
    statuses = [person.type_password("wrong", f"user{number}").status_code for number in range(BY_ADDRESS.burst + 2)]
    assert statuses == [403] * BY_ADDRESS.burst + [429] * 2
    assert person.type_password(PASSWORD).status_code == 429
    assert "Set up" in Person(site, "198.51.100.1").type_password(PASSWORD).text


def test_a_header_that_names_another_address_gives_no_more_attempts(site: Site) -> None:
    person = Person(site)
    statuses = []
    for number in range(BY_ADDRESS.burst + 1):
        person.client.headers.update({"X-Forwarded-For": f"203.0.113.{number}", "X-Forwarded-Proto": "https"})
        statuses.append(person.type_password("wrong", f"user{number}").status_code)
    assert statuses[-2:] == [403, 429]
    proxied = replace(site, proxy=ip_address("192.0.2.9"))
    honest = Person(proxied)
    statuses = []
    for number in range(BY_ADDRESS.burst + 1):
        forwarded = f"203.0.113.{number}, 198.51.100.7"  # the client says the first, and the proxy adds the last
        honest.client.headers.update({"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https"})
        statuses.append(honest.type_password("wrong", f"other{number}").status_code)
    assert statuses[-2:] == [403, 429]


def test_whoever_is_turned_away_in_a_crowd_has_lost_no_attempt(site: Site) -> None:
    crowded = replace(site, hasher=passwords.Hasher(at_once=0, waiting=0))
    for _ in range(BY_ADDRESS.burst + BY_ACCOUNT.burst):
        page = Person(crowded).type_password(PASSWORD)
        assert page.status_code == 503
        assert "in a few seconds" in page.text
    assert "Set up" in Person(site).type_password(PASSWORD).text


def test_guessing_codes_is_stopped_for_who_knows_the_password(site: Site, alice: Person, app: str) -> None:
    codes = 0
    for _ in range(1000):
        if alice.type_password(PASSWORD).status_code == 429:
            break
        if alice.send("/sign-in/second/code", code="000000").status_code == 429:
            break
        codes += 1
    assert codes <= BY_ACCOUNT.burst


def test_a_sign_in_ends_when_it_is_idle_and_after_twelve_hours(site: Site, signed_in: Person, clock: Clock) -> None:
    began = clock.now
    while clock.now < began + LIFETIME - IDLE_MAX:
        clock.now += IDLE_MAX - 120
        assert signed_in.is_signed_in, "every request counts"
    clock.now = began + LIFETIME
    assert not signed_in.is_signed_in


def test_an_idle_sign_in_ends(signed_in: Person, clock: Clock) -> None:
    clock.now += IDLE_MAX
    assert not signed_in.is_signed_in


def test_signing_out_ends_the_cookie_and_not_only_in_the_browser(site: Site, signed_in: Person) -> None:
    cookie = signed_in.cookie
    signed_in.open("/account")
    assert "You are signed out." in signed_in.send("/sign-out").text
    assert not signed_in.cookie
    other = Person(site)
    other.client.cookies.set("__Host-wgpy", cookie, domain="vpn.example.org", path="/")
    assert not other.is_signed_in


def test_signing_out_everywhere_ends_every_browser(site: Site, signed_in: Person, app: str, clock: Clock) -> None:
    others = [Person(site) for _ in range(2)]
    for other in others:
        sign_in(other, app, clock)
    signed_in.open("/account")
    assert "signed out in 3 browsers" in signed_in.send("/account/sign-out").text
    assert not any(each.is_signed_in for each in (signed_in, *others))


@pytest.mark.parametrize(
    "loss",
    [
        {"enabled": False},
        {"expires": 1.0},
        {"suspended": True},
    ],
)
def test_who_may_not_come_in_any_more_is_out_with_the_next_request(
    site: Site, signed_in: Person, loss: dict[str, object]
) -> None:
    with site.database.change("root") as change:
        users.replace(change, replace(users.find(change.connection, "alice"), **loss))  # type: ignore[arg-type]
    assert not signed_in.is_signed_in


def test_a_removed_user_is_out(site: Site, signed_in: Person) -> None:
    with site.database.change("root") as change:
        users.remove(change, "alice")
    assert not signed_in.is_signed_in


NASTY = [
    "//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "/\n/evil.example",
    "\\\\evil.example",
    "javascript:alert(1)", "", "account", "/a\r\nSet-Cookie: x=y", " //evil.example", "/é", "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("path", NASTY)
def test_a_link_cannot_lead_to_another_site_after_the_sign_in(site: Site, alice: Person, path: str) -> None:
    with site.database.change("root") as change:
        endpoint.replace(change, replace(endpoint.find(change.connection), second_factor=False))
    form = {
        "name": "alice",
        "password": PASSWORD,
        "next": path.encode(errors="surrogateescape").decode(errors="replace"),
    }
    assert alice.client.post("/sign-in", data=form).headers["location"] == "/"
    assert 'name="next" value="/"' in alice.client.get("/sign-in", params={"next": form["next"]}).text


def test_somebody_who_is_not_signed_in_is_led_to_the_sign_in_page_and_back(
    site: Site, alice: Person, app: str, clock: Clock
) -> None:
    for path in ("/account", "/account/factors"):
        assert alice.client.get(path).headers["location"] == f"/sign-in?next={path}"
    alice.open("/account")
    alice.send("/sign-in", name="alice", password=PASSWORD)
    assert "My account" in alice.send("/sign-in/second/code", code=code_of(app, clock.now)).text


def test_a_right_password_alone_opens_nothing_and_adds_no_second_factor(
    site: Site, alice: Person, app: str, clock: Clock
) -> None:
    early = Person(site)
    with site.database.change("root") as change:
        credentials.remove_totp(change, "alice")
    early.type_password(PASSWORD)  # when she had none, and the page to add one is still open
    with site.database.change("root") as change:
        credentials.set_totp(change, "alice", b"2" * 20, 0, [])
    assert "One more step" in early.answer("/sign-in/enrol/passkey", Authenticator(URL)).text
    alice.type_password(PASSWORD)
    assert not alice.is_signed_in
    for path in ("/account/factors", "/account"):
        assert alice.client.get(path).status_code == 303
    assert "One more step" in alice.open("/sign-in/enrol").text
    with site.database.read() as connection:
        assert passkeys.find_all(connection, "alice") == []


def test_a_right_password_is_worth_nothing_after_a_while_or_when_it_was_changed(
    site: Site, alice: Person, app: str, clock: Clock
) -> None:
    alice.type_password(PASSWORD)
    clock.now += 601
    assert "Sign in" in alice.open("/sign-in/second").text
    assert alice.page.url.path == "/sign-in"
    alice.type_password(PASSWORD)
    clock.now += 1
    with site.database.change("root") as change:
        credentials.set_password(change, "alice", site.hasher.hash(NEW))
    assert alice.open("/sign-in/second").url.path == "/sign-in"
    for cookie in ("junk", "A" * 200):
        alice.client.cookies.set("__Host-wgpy-half", cookie, domain="vpn.example.org", path="/")
        assert alice.open("/sign-in/second").url.path == "/sign-in"


def test_who_finds_a_browser_open_cannot_change_how_its_owner_signs_in(
    site: Site, signed_in: Person, clock: Clock
) -> None:
    forms = {path: signed_in.open(page) for path, page in (
        ("/account/passkeys", "/account/factors"), ("/account/totp", "/account/factors"),
        ("/account/password", "/account"), ("/account/totp/remove", "/account"),
    )}  # fmt: skip
    clock.now += FRESH
    assert signed_in.is_signed_in
    for path, form in forms.items():
        signed_in.page = form
        values = {"current": PASSWORD, "password": NEW, "again": NEW, "answer": "{}", "code": "000000"}
        assert signed_in.send(path, **values).url.path == "/sign-in"
    with site.database.read() as connection:
        assert credentials.has_second_factor(connection, "alice")
    assert passwords.check(site.database, site.hasher, "alice", PASSWORD)
    assert signed_in.open("/account/factors").url.path == "/sign-in"


def test_a_used_or_foreign_link_sets_no_password(site: Site, clock: Clock) -> None:
    with site.database.change("root") as change:
        foreign = links.add(change, "device", "alice", 60.0)
        secret = links.add(change, links.SET_UP, "alice", 60.0)
    for wrong in (foreign, "", "junk", "..", "\udcff"):
        assert "Choose a password" not in Person(site).open(f"/set-up/{quote(wrong, errors='replace')}").text
    path = f"/set-up/{secret}"
    first, second = Person(site), Person(site)
    first.open(path)
    second.open(path)
    assert "Set up" in first.send(path, password=NEW, again=NEW).text
    assert "was used already" in second.send(path, password=PASSWORD, again=PASSWORD).text
    assert "is wrong" in Person(site).type_password(PASSWORD).text


def test_what_strangers_type_leaves_nothing_in_the_database_and_no_password_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    counts = select(func.count())
    tables = (schema.logins, schema.audit, schema.credentials, schema.links)
    with site.database.read() as connection:
        before = [connection.execute(counts.select_from(table)).scalar() for table in tables]
    person = Person(site)
    for number in range(20):
        person.type_password("the secret of somebody", f"a\n\x1b[31m{number}")
        for answer in ('{"id": "x"}', '{"id": "\\u0000"}', '{"id": "\\ud800"}', '{"id": 1}', "[]", "{"):
            if person.send("/sign-in/passkey", answer=answer).status_code == 429:
                break
            assert person.page.status_code == 403
    with site.database.read() as connection:
        assert [connection.execute(counts.select_from(table)).scalar() for table in tables] == before
    assert "the secret" not in caplog.text
    assert "\x1b" not in caplog.text
    assert "'a\\n\\x1b[31m1' from 192.0.2.9 refused" in caplog.text


def test_what_is_stored_signs_nobody_in(site: Site, signed_in: Person) -> None:
    with site.database.read() as connection:
        (login,) = logins.find_all(connection, "alice")
    other = Person(site)
    other.client.cookies.set("__Host-wgpy", login.id, domain="vpn.example.org", path="/")
    assert not other.is_signed_in


def test_a_long_name_does_not_fill_the_log(alice: Person, caplog: pytest.LogCaptureFixture) -> None:
    assert alice.type_password("wrong", "\N{GRINNING FACE}" * 4000).status_code == 403
    assert "refused: wrong name or password" in caplog.text
    assert len(caplog.text) < 5000
