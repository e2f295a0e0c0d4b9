"""A directory's page: it is checked, with a real OpenLDAP, and removed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.identity.corp import corp
from tests.gateway.identity.slapd import BASE, Slapd
from tests.gateway.web.console.conftest import Person
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.people import User
from wgpy.gateway.store import directories, users
from wgpy.gateway.web.site import Site

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("slapd")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with corp(tmp_path_factory.mktemp("slapd") / "corp") as running:
        yield running


def add(site: Site, server: Slapd, secret: bytes = b"seeks", **other: object) -> None:
    with site.database.change("root") as change:
        made = Directory(name="staff-ldap", kind="ldap", settings=server.settings(**other).json())
        directories.add(change, made, secret)


def test_a_check_shows_what_the_directory_says_and_no_secret(admin: Person, filled: Site, server: Slapd) -> None:
    add(filled, server)
    assert server.settings().servers[0] in admin.get("/directories").text
    page = admin.send("/directories/staff-ldap/check", {})
    assert (page.status_code, "It answers" in page.text, BASE in page.text) == (200, True, True)
    assert "seeks" not in page.text


def test_a_check_that_fails_says_why(admin: Person, filled: Site, server: Slapd) -> None:
    add(filled, server, b"another password")
    page = admin.send("/directories/staff-ldap/check", {})
    assert (page.status_code, "It answers" in page.text) == (503, False)
    assert "another password" not in page.text
    assert server.settings().servers[0] in page.text


def test_a_directory_is_removed_with_its_users_only_if_that_is_said(admin: Person, filled: Site) -> None:
    with filled.database.change("root") as change:
        users.add(change, User(name="dora", source="corp", subject="1"))
    refused = admin.send("/directories/corp/remove", {})
    assert (refused.status_code, "user dora comes from it" in refused.text) == (409, True)
    said = admin.after(admin.send("/directories/corp/remove", {"with_users": "yes"})).text
    assert "Directory corp removed. Users removed with it: 1." in said
    with filled.database.read() as connection:
        assert not directories.find_all(connection)
        assert "dora" not in {user.name for user in users.find_all(connection)}
    assert admin.send("/directories/corp/remove", {}).status_code == 400


def test_the_address_to_register_at_a_provider_is_shown(admin: Person) -> None:
    assert "https://vpn.example.org/sign-in/directory/corp/callback" in admin.get("/directories/corp").text
