"""People from an LDAP directory, which is a real OpenLDAP, sign in on the page."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Iterator
from threading import BoundedSemaphore

import pytest

from tests.gateway.identity.corp import corp
from tests.gateway.identity.slapd import BASE, Slapd
from tests.gateway.web.sign_in.conftest import PASSWORD, Clock
from tests.gateway.web.sign_in.person import Person
from wgpy.gateway.identity.directory import Clients
from wgpy.gateway.identity.ldap.people import Denied, People
from wgpy.gateway.policy.directories import Directory, GroupMapping
from wgpy.gateway.policy.people import User
from wgpy.gateway.service.directories import Checks
from wgpy.gateway.store import audit, directories, users
from wgpy.gateway.web.server import THREADS
from wgpy.gateway.web.sign_in import ldap
from wgpy.gateway.web.sign_in.pages import WRONG
from wgpy.gateway.web.site import Site

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("slapd")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with corp(tmp_path_factory.mktemp("slapd") / "corp") as running:
        yield running


def add(site: Site, server: Slapd, name: str = "corp", **other: object) -> None:
    groups = GroupMapping(names={"technical": "ops"}, prefix="")
    made = Directory(name=name, kind="ldap", settings=server.settings(**other).json(), groups=groups)
    with site.database.change("root") as change:
        directories.add(change, made, b"seeks")


def test_somebody_from_the_directory_becomes_a_user(site: Site, server: Slapd) -> None:
    add(site, server)
    bob = Person(site)
    bob.type_password("bob's own", "bob")
    assert bob.is_signed_in
    with site.database.read() as connection:
        user = users.find(connection, "bob")
        assert (user.source, user.email, user.groups) == ("corp", "bob@example.org", frozenset({"staff", "ops"}))
        entry = next(each for each in audit.find_last(connection, 9) if each["kind"] == "login")
        assert entry["after"]["strength"] == "password"
        assert "corp" in directories.sources_due(connection, site.wall() + 60)  # and is asked about again
    again = Person(site)
    again.type_password("bob's own", "Bob")  # who is the same for the directory
    assert again.is_signed_in


@pytest.mark.parametrize(
    ("name", "password"), [("bob", "wrong"), ("bob", ""), ("*", "bob's own"), ("expired", "expired's own"), ("x", "x")]
)
def test_whom_the_directory_refuses_is_told_nothing_more(
    name: str,
    password: str,
    site: Site,
    server: Slapd,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add(site, server)
    person = Person(site)
    page = person.type_password(password, name)
    assert page.status_code == 403
    assert WRONG in html.unescape(page.text)
    assert not person.is_signed_in
    assert "bob's own" not in caplog.text
    with site.database.read() as connection:
        assert [each.name for each in users.find_all(connection)] == ["alice"]


def test_a_local_users_password_is_no_directorys_business(
    site: Site,
    server: Slapd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(site, server)
    monkeypatch.setattr(People, "sign_in", lambda *_: pytest.fail("the directory was asked"))
    assert Person(site).type_password("alice's own").status_code == 403  # which the directory's Alice has
    assert Person(site).type_password(PASSWORD).status_code == 200


def test_a_directory_that_is_down_is_closed_and_no_wrong_attempt(site: Site, server: Slapd) -> None:
    add(site, server, servers=("ldaps://localhost:1",))
    for _ in range(20):
        assert Person(site).type_password("bob's own", "bob").status_code == 503
    assert Person(site).type_password(PASSWORD).status_code == 200  # local users come in all the same


def test_the_throttle_comes_before_the_directory(
    site: Site,
    server: Slapd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(site, server)
    asked: list[str] = []

    def refuse(people: People, name: str, password: str, wall: float) -> Denied:
        asked.append(name)
        return Denied("invalid credentials")

    monkeypatch.setattr(People, "sign_in", refuse)
    spellings = ("bob", "BOB", "Bob", "bOB")
    codes = [Person(site).type_password("wrong", spellings[n % 4]).status_code for n in range(14)]
    assert codes == [403] * 10 + [429] * 4
    assert len(asked) == 10


def test_people_who_wait_for_a_directory_leave_threads_for_others(
    site: Site,
    server: Slapd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(site, server)
    assert 0 < ldap.AT_ONCE < THREADS
    monkeypatch.setattr(ldap, "_TURNS", BoundedSemaphore(1))
    assert ldap._TURNS.acquire(blocking=False)
    assert Person(site).type_password("bob's own", "bob").status_code == 503
    ldap._TURNS.release()
    bob = Person(site)
    bob.type_password("bob's own", "bob")
    assert bob.is_signed_in


def test_groups_follow_and_who_is_disabled_is_out_by_the_next_check(site: Site, server: Slapd, clock: Clock) -> None:
    add(site, server)
    carol = Person(site)
    carol.type_password("carol's own", "carol")
    assert carol.is_signed_in

    def check() -> User:
        clock.now += directories.INTERVAL + 1
        asyncio.run(Checks(site.database, Clients(site.database)).check("corp"))
        with site.database.read() as connection:
            return users.find(connection, "carol")

    assert check().groups == frozenset()
    server.modify(
        f"dn: cn=staff,ou=groups,{BASE}\nchangetype: modify\nadd: member\nmember: uid=carol,ou=people,{BASE}\n"
    )
    found = check()
    assert (found.groups, found.suspended) == (frozenset({"staff", "ops"}), False)
    assert carol.is_signed_in
    server.modify(f"dn: uid=carol,ou=people,{BASE}\nchangetype: modify\nadd: nsAccountLock\nnsAccountLock: TRUE\n")
    assert check().suspended
    assert not carol.is_signed_in
    assert Person(site).type_password("carol's own", "carol").status_code == 403
    server.modify(
        f"dn: uid=carol,ou=people,{BASE}\nchangetype: modify\ndelete: nsAccountLock\n\n"
        f"dn: cn=staff,ou=groups,{BASE}\nchangetype: modify\ndelete: member\nmember: uid=carol,ou=people,{BASE}\n"
    )
    again = Person(site)
    again.type_password("carol's own", "carol")
    assert again.is_signed_in
    assert (check().groups, check().suspended) == (frozenset(), False)
