"""The forms that add and change a directory: what they store, what they refuse, and where the secret goes."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from tests.gateway.identity.oidc.fake import ISSUER, Fake
from tests.gateway.web.console.conftest import ADMIN, Person
from wgpy.errors import ControlError
from wgpy.gateway.identity import directory as identity
from wgpy.gateway.policy.directories import Directory, GroupMapping
from wgpy.gateway.policy.ldap import ACTIVE_DIRECTORY
from wgpy.gateway.policy.logins import FRESH
from wgpy.gateway.store import audit, directories
from wgpy.gateway.web.site import Site

OIDC: dict[str, Any] = {
    "issuer": ISSUER, "client_id": "vpn", "name_claim": "email", "groups_claim": "groups", "grace": "2h",
}  # fmt: skip
LDAP: dict[str, Any] = {
    "servers": "ldaps://dc1\r\nldaps://dc2", "base": "dc=corp", "timeout": "5s", "user_filter": "(uid=*)",
    "login": "uid", "subject": "entryUUID", "group_filter": "(cn=*)", "group_name": "cn", "membership": "memberof",
    "bind_dn": "cn=vpn", "secret": " with spaces ", "grace": "1h",
}  # fmt: skip
UNASKED = {"unchecked": "yes"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Directory, bytes]]:
    """What directories are asked, and with which secret. They answer."""
    seen: list[tuple[Directory, bytes]] = []
    monkeypatch.setattr(identity, "check", lambda *what: seen.append(what))
    return seen


def stored(site: Site, name: str) -> tuple[Directory, bytes]:
    with site.database.read() as connection:
        return directories.find(connection, name), directories.secret(connection, site.database.vault, name)


def errors(page: str) -> dict[str, str]:
    """What is said at each field, by its name. The field says so to a screen reader, too."""
    found = dict(re.findall(r'<p class="error" id="(\w+)-error">(.*?)</p>', page))
    for name in found:
        assert re.search(rf'name="{name}"[^>]*aria-invalid="true"[^>]*aria-describedby="[^"]*{name}-error', page)
    return {name: html.unescape(said) for name, said in found.items()}


def test_a_provider_is_added_after_it_was_really_asked(
    admin: Person, filled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake()
    monkeypatch.setattr(identity, "client", fake.client)
    names = {"names": "vpn-users=staff\r\n\r\nroot=ops", "secret": "hush", "require": "hd=example.org"}
    said = admin.after(admin.send("/add/directory/oidc", {"name": "corp2", **OIDC, **names})).text
    assert "Directory corp2 added. It answers" in said
    directory, secret = stored(filled, "corp2")
    assert (directory.kind, directory.grace, secret) == ("oidc", 7200, b"hush")
    assert directory.groups == GroupMapping(names={"vpn-users": "staff", "root": "ops"})
    assert (directory.settings["require"], directory.settings["name_claim"]) == ({"hd": "example.org"}, "email")
    assert fake.asked
    with filled.database.read() as connection:
        (entry,) = audit.of(connection, "directory", "corp2")
    assert entry["who"] == f"user {ADMIN}"
    assert "hush" not in str(entry) + said + admin.get("/directories/corp2/change").text + admin.get("/audit").text


def test_what_does_not_answer_is_added_only_if_that_is_said(
    admin: Person, filled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake()
    fake.document = {"issuer": "https://evil.example"}
    monkeypatch.setattr(identity, "client", fake.client)
    fields = {"name": "corp2", **OIDC, "secret": "hush"}
    refused = admin.send("/add/directory/oidc", fields)
    assert (refused.status_code, "calls itself" in refused.text, "Nothing was saved" in refused.text) == (
        503,
        True,
        True,
    )
    assert "hush" not in refused.text
    assert f'value="{ISSUER}"' in refused.text, "what was typed is still there"
    assert admin.get("/directories/corp2").status_code == 404
    assert "was not asked" in admin.after(admin.send("/add/directory/oidc", {**fields, **UNASKED})).text
    assert stored(filled, "corp2")[1] == b"hush"


def test_an_ldap_directory_is_added_and_its_form_shows_what_is_stored(
    admin: Person, filled: Site, asked: list[tuple[Directory, bytes]]
) -> None:
    admin.after(admin.send("/add/directory/ldap", {"name": "ldap", **LDAP, "prefix": "vpn-"}))
    directory, secret = stored(filled, "ldap")
    assert asked == [(directory, secret)]
    assert secret == b" with spaces "
    assert (directory.settings["servers"], directory.settings["timeout"]) == (["ldaps://dc1", "ldaps://dc2"], 5.0)
    assert (directory.settings["membership"], directory.groups.prefix) == ("memberof", "vpn-")
    shown = admin.get("/directories/ldap/change").text
    assert "ldaps://dc1\nldaps://dc2</textarea>" in shown
    assert 'value="memberof" selected' in shown
    assert "with spaces" not in shown
    same = {key: value for key, value in LDAP.items() if key != "secret"}
    admin.after(admin.save("/directories/ldap/change", {**same, "prefix": "vpn-"}))
    assert stored(filled, "ldap") == (directory, secret), "nothing was changed, and the secret was kept"


def test_the_form_for_active_directory_begins_with_its_settings(admin: Person) -> None:
    shown = html.unescape(admin.get("/add/directory/active-directory").text)
    for name, value in ACTIVE_DIRECTORY.items():
        assert f'value="{value}" selected' in shown if name == "membership" else f'value="{value}"' in shown


@pytest.mark.parametrize(
    ("which", "fields", "wrong"),
    [
        ("oidc", {**OIDC, "name": "a b", "issuer": "http://x", "client_id": "", "scopes": "email", "ca": "x",
                  "names": "staff", "grace": "soon"},
         {"name", "issuer", "client_id", "scopes", "ca", "names", "grace"}),
        ("oidc", {**OIDC, "name": "corp", "names": "a=nobody", "all_groups": "yes", "prefix": "vpn-", "grace": "31d"},
         {"name", "names", "prefix", "grace"}),
        ("oidc", {**OIDC, "name": "x", "client_id": "a\x1bb", "require": "hd", "parameters": "state=x"},
         {"client_id", "require", "parameters"}),
        ("ldap", {**LDAP, "name": "local", "servers": "dc1", "base": "", "timeout": "2m", "user_filter": "(",
                  "membership": "all", "secret": "a\x07b"},
         {"name", "servers", "base", "timeout", "user_filter", "membership", "secret"}),
        ("ldap", {**LDAP, "name": "x", "plain": "yes"}, {"plain"}),
        ("ldap", {}, {"name", "servers", "base", "timeout", "user_filter", "login", "subject", "group_filter",
                      "group_name", "membership", "grace"}),
    ],
)  # fmt: skip
def test_each_mistake_is_told_at_its_field_and_nothing_is_asked_or_saved(
    which: str, fields: dict[str, Any], wrong: set[str], admin: Person, filled: Site,
    asked: list[tuple[Directory, bytes]],
) -> None:  # fmt: skip
    refused = admin.send(f"/add/directory/{which}", fields)
    assert refused.status_code == 400
    assert {*errors(refused.text)} == wrong
    assert "Nothing was saved." in refused.text
    assert asked == []
    with filled.database.read() as connection:
        assert [each.name for each in directories.find_all(connection)] == ["corp"]


def test_a_secret_is_kept_replaced_and_not_sent_elsewhere(
    admin: Person, filled: Site, asked: list[tuple[Directory, bytes]]
) -> None:
    admin.after(admin.save("/directories/corp/change", {**OIDC, "issuer": "https://id.example.org"}))
    assert stored(filled, "corp")[1] == b"secret" == asked.pop()[1]
    elsewhere = {**OIDC, "issuer": "https://evil.example"}
    for fields in (elsewhere, {**elsewhere, **UNASKED}):
        refused = admin.save("/directories/corp/change", fields)
        assert errors(refused.text) == {"secret": "issuer: it says who gets the secret; give the secret with it"}
        assert asked == []
    admin.after(admin.save("/directories/corp/change", {**elsewhere, "secret": "another"}))
    assert [secret for _, secret in asked] == [b"another"]
    assert stored(filled, "corp")[1] == b"another"


def test_a_directory_without_a_secret_may_go_elsewhere(
    admin: Person, filled: Site, asked: list[tuple[Directory, bytes]]
) -> None:
    admin.after(admin.send("/add/directory/oidc", {"name": "public", **OIDC}))
    admin.after(admin.save("/directories/public/change", {**OIDC, "issuer": "https://other.example"}))
    assert stored(filled, "public")[0].settings["issuer"] == "https://other.example"
    assert [secret for _, secret in asked] == [b"", b""]


def test_too_many_checks_at_once_are_refused_and_nothing_is_saved(
    admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: Directory, secret: bytes) -> None:
        raise ControlError("other directories are being checked; try again in a moment")

    monkeypatch.setattr(identity, "check", refuse)
    page = admin.send("/add/directory/oidc", {"name": "corp2", **OIDC})
    assert (page.status_code, "try again in a moment" in page.text) == (503, True)


@pytest.mark.parametrize("path", ["/add/directory/oidc", "/add/directory/ldap", "/directories/corp/change"])
def test_only_who_has_just_signed_in_may_see_or_send_the_form(path: str, admin: Person, filled: Site) -> None:
    assert admin.get(path).status_code == 200
    object.__setattr__(filled, "wall", lambda: 1000.0 + FRESH + 1)
    for answer in (admin.get(path), admin.send(path, {**OIDC, **UNASKED, "name": "corp2"})):
        assert (answer.status_code, answer.headers.get("location", "")[:8]) == (303, "/sign-in")
