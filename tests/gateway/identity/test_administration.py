"""What is checked of a directory's settings before they are stored, for the command line, the API and the console."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateway.identity.authority import Authority
from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.identity import directory as identity
from wgpy.gateway.identity import trust
from wgpy.gateway.identity.administration import check_kept, directory_settings
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.problems import Unusable

OIDC: dict[str, Any] = {"issuer": "https://id.example.org", "client_id": "vpn"}
LDAP: dict[str, Any] = {"servers": ["ldaps://dc1"], "base": "dc=corp"}
GOOD = {"oidc": OIDC, "ldap": LDAP}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.root(tmp_path_factory.mktemp("authority"))


def test_settings_are_stored_with_the_usual_ones() -> None:
    assert directory_settings("oidc", OIDC)["name_claim"] == "preferred_username"
    assert directory_settings("ldap", {**LDAP, "timeout": 5})["timeout"] == 5.0
    for kind, values in GOOD.items():
        made = directory_settings(kind, values)
        assert directory_settings(kind, made) == made
    with pytest.raises(ConfigError, match="expected one of oidc, ldap"):
        directory_settings("nis", {})


@pytest.mark.parametrize(
    ("kind", "values", "wrong"),
    [
        ("oidc", {"issuer": "http://x", "client_id": "", "scopes": ["email"], "name_claim": "", "groups_claim": ""},
         {"issuer", "client_id", "scopes", "name_claim", "groups_claim"}),
        ("oidc", {**OIDC, "parameters": {"state": "x"}, "ca": "x"}, {"parameters", "ca"}),
        ("oidc", {"issuer": 1, "client_id": None, "isuer": ""}, {"issuer", "client_id", "isuer"}),
        ("oidc", {**OIDC, "require": {"hd": 1}}, {"require"}),
        ("ldap", {"servers": [], "base": "", "timeout": 0, "user_filter": "(", "group_filter": ")", "login": "a b",
                  "subject": "", "group_name": "*", "membership": "all", "ca": "-----BEGIN CERTIFICATE-----"},
         {"servers", "base", "timeout", "user_filter", "group_filter", "login", "subject", "group_name", "membership",
          "ca"}),
        ("ldap", {**LDAP, "plain": True}, {"plain"}),
    ],
)  # fmt: skip
def test_all_that_is_wrong_is_told_at_once_each_by_its_name(kind: str, values: dict[str, Any], wrong: set[str]) -> None:
    with pytest.raises(Unusable) as error:
        directory_settings(kind, values)
    assert {*error.value.why} == wrong
    assert all(error.value.why.values())
    assert str(error.value).isprintable()


@pytest.mark.parametrize("kind", GOOD)
def test_certificates_are_read_before_they_are_stored(kind: str, authority: Authority) -> None:
    good = authority.pem()
    assert directory_settings(kind, {**GOOD[kind], "ca": good})["ca"] == good
    for ca, why in (
        ("not PEM", "expected certificates in PEM"),
        (good.replace("MII", "MIJ"), "expected certificates in PEM"),
        (authority.signed.key.read_text(), "private key"),
        (good + authority.signed.key.read_text(), "private key"),
        (good + "#" * trust.LONGEST, "more than 256 KiB"),
    ):
        with pytest.raises(Unusable) as error:
            directory_settings(kind, {**GOOD[kind], "ca": ca})
        assert error.value.why["ca"].startswith("ca: ")
        assert why in str(error.value)
        assert len(str(error.value)) < 300, "one sentence, which does not repeat what was given"


@pytest.mark.parametrize(
    ("kind", "change", "goes_elsewhere"),
    [
        ("oidc", {"issuer": "https://evil.example"}, True),
        ("oidc", {"ca": "another"}, True),
        ("oidc", {"ca": "", "groups_claim": "roles", "client_id": "other"}, False),
        ("ldap", {"servers": ["ldaps://dc1", "ldaps://evil"]}, True),
        ("ldap", {"servers": ["ldap://dc1"]}, True),
        ("ldap", {"plain": True}, True),
        ("ldap", {"ca": "another"}, True),
        ("ldap", {"plain": False, "user_filter": "(uid=*)"}, False),
    ],
)
def test_a_secret_that_is_kept_goes_to_nobody_else(kind: str, change: dict[str, Any], goes_elsewhere: bool) -> None:
    before = Directory(name="corp", kind=kind, settings=GOOD[kind])
    after = Directory(name="corp", kind=kind, settings={**GOOD[kind], **change})
    if not goes_elsewhere:
        check_kept(before, after)
        return
    with pytest.raises(Unusable, match="give the secret with it"):
        check_kept(before, after)


class Slow:
    """A directory that answers when the test lets it."""

    def __init__(self) -> None:
        self.asked, self.free = threading.Semaphore(0), threading.Event()

    async def probe(self) -> dict[str, Any]:
        self.asked.release()
        assert self.free.wait(30)
        return {"people": 1}

    async def close(self) -> None: ...


def test_few_directories_are_checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, corp = Slow(), Directory(name="corp", kind="oidc", settings=OIDC)
    monkeypatch.setattr(identity, "client", lambda *_: slow)
    with ThreadPoolExecutor(identity.AT_ONCE) as pool:
        running = [pool.submit(identity.check, corp, b"") for _ in range(identity.AT_ONCE)]
        assert all(slow.asked.acquire(timeout=30) for _ in running)
        with pytest.raises(ControlError, match="try again in a moment"):
            identity.check(corp, b"")
        slow.free.set()
        assert [each.result() for each in running] == [{"people": 1}] * identity.AT_ONCE
    assert identity.check(corp, b"") == {"people": 1}
