"""What a directory says, and what is made of it: groups, names, claims. And settings that cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from wgpy.errors import ConfigError
from wgpy.gateway.policy.directories import Directory, GroupMapping
from wgpy.gateway.policy.names import checked, plain
from wgpy.gateway.policy.oidc import Settings

KNOWN = ("staff", "ops", "admins")
CORP = Settings(issuer="https://id.example.org/realms/corp", client_id="vpn", require={"hd": "example.org"})
CLAIMS = {"sub": "4711", "preferred_username": "alice", "hd": "example.org", "name": "Alice A.", "groups": ["a", "b"]}


@pytest.mark.parametrize(
    ("mapping", "theirs", "ours"),
    [
        (GroupMapping(), {"staff", "ops"}, set()),
        (GroupMapping(prefix=""), {"staff", "others"}, {"staff"}),
        (GroupMapping(prefix="vpn-"), {"vpn-ops", "vpn-others", "staff", "vpn-"}, {"ops"}),
        (GroupMapping(names={"cn=a,dc=b": "staff"}), {"cn=a,dc=b", "ops"}, {"staff"}),
        (GroupMapping(names={"vpn-ops": "staff"}, prefix="vpn-"), {"vpn-ops", "vpn-admins"}, {"staff", "admins"}),
        (GroupMapping(names={"a": "gone"}, prefix=""), {"a"}, set()),  # our group was removed since
        (GroupMapping(names={"a": "staff", "b": "staff"}), {"a", "b"}, {"staff"}),
    ],
)
def test_which_of_our_groups_a_directorys_are(mapping: GroupMapping, theirs: set[str], ours: set[str]) -> None:
    assert mapping.ours(theirs, KNOWN) == ours


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("alice@example.org", "alice@example.org"),
        ("José Müller", "Jose-Muller"),
        ("../etc/passwd", "etc-passwd"),
        ("CORP\\alice", "CORP-alice"),
        ("<script>", "script"),
        ("\N{GREEK SMALL LETTER ALPHA}\n", ""),
        ("-rf", "rf"),
        ("a" * 300, "a" * 255),
    ],
)
def test_any_text_becomes_a_name_that_is_safe_or_none(text: str, name: str) -> None:
    assert plain(text) == name
    if name:
        assert checked("user", name) == name


def test_a_person_is_what_the_claims_say() -> None:
    person = CORP.person("corp", {**CLAIMS, "email": "a@example.org", "email_verified": True})
    assert (person.name, person.source, person.subject) == ("alice", "corp", "4711")
    assert (person.display_name, person.email) == ("Alice A.", "a@example.org")
    assert person.groups == {"a", "b"}


def test_an_address_that_nobody_verified_is_nobodys() -> None:
    person = CORP.person("corp", {**CLAIMS, "email": "boss@example.org", "email_verified": False})
    assert person.email == ""
    nameless = {**CLAIMS, "preferred_username": "", "email": "boss@example.org", "email_verified": False}
    assert CORP.person("corp", nameless).name == "4711"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sub": None}, "the claim sub is missing"),
        ({"sub": ""}, "the claim sub is missing"),
        ({"sub": 4711}, "the claim sub is missing"),
        ({"sub": "x" * 256}, "missing or too long"),
        ({"hd": "evil.example"}, "claim hd is example.org"),
        ({"hd": ["example.org"]}, "claim hd is example.org"),
        ({"groups": {"staff": True}}, "not a list"),
        ({"groups": ["g"] * 1001}, "at most 1000 groups"),
        (
            {"preferred_username": "\u03b1", "sub": "\u03b1"},
            "gives no name",
        ),
    ],
)
def test_claims_that_do_not_say_who_somebody_is_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        CORP.person("corp", {**CLAIMS, **change})


def test_groups_that_are_no_texts_are_none_and_one_group_may_be_a_text() -> None:
    assert CORP.person("corp", {**CLAIMS, "groups": ["a", 1, None, {"b": 1}]}).groups == {"a"}
    assert CORP.person("corp", {**CLAIMS, "groups": "a"}).groups == {"a"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"issuer": "http://id.example.org"}, "expected an address that begins with https://"),
        ({"issuer": "https://"}, "begins with https://"),
        ({"issuer": "https://user:secret@id.example.org"}, "begins with https://"),
        ({"issuer": "https://id.example.org?x=1"}, "no \\? and no #"),
        ({"issuer": "https://[id"}, "Invalid IPv6"),
        ({"issuer": "https://id.example.org:port"}, "port"),
        ({"issuer": "file:///etc/passwd"}, "begins with https://"),
        ({"client_id": ""}, "client id: none given"),
        ({"scopes": ("profile",)}, "openid is missing"),
        (
            {"parameters": {"redirect_uri": "https://evil.example"}},
            "redirect_uri: the gateway sets this itself",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Settings(**{"issuer": "https://id.example.org", "client_id": "vpn", **change})


def test_settings_are_read_back_as_they_were_written() -> None:
    assert Settings(**CORP.json()) == CORP
    assert Settings(issuer="http://127.0.0.1:5556/dex", client_id="vpn").scopes_of(["openid", "groups"]) == (
        "openid",
        "profile",
        "email",
        "groups",
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "local"}, "choose another name"),
        ({"name": "a/b"}, "expected a name"),
        ({"kind": "saml"}, "expected one of oidc, ldap"),
        ({"grace": -1}, "grace -1"),
    ],
)
def test_a_directory_that_cannot_be_used_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Directory(**{"name": "corp", "kind": "oidc", "settings": {}, **change})
