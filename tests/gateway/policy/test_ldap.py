"""The settings of LDAP directories."""

from __future__ import annotations

from typing import Any

import pytest

from wgpy.errors import ConfigError
from wgpy.gateway.policy.ldap import ACTIVE_DIRECTORY, Membership, Server, Settings

GOOD: dict[str, Any] = {"servers": ("ldaps://dc1", "ldap://dc2:3268"), "base": "dc=corp"}


def test_settings_survive_json() -> None:
    for settings in (Settings(**GOOD), Settings(**GOOD, **ACTIVE_DIRECTORY)):
        assert Settings(**settings.json()) == settings
    assert Settings(**GOOD, **ACTIVE_DIRECTORY).membership is Membership.CHAIN


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("ldaps://dc1.corp.example", Server("dc1.corp.example", 636, True)),
        ("ldap://10.0.0.1", Server("10.0.0.1", 389, False)),
        ("ldaps://[fd00::1]:3269/", Server("fd00::1", 3269, True)),
    ],
)
def test_servers_are_urls(url: str, server: Server) -> None:
    assert Server.parse(url) == server
    assert Server.parse(str(server)) == server


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"servers": ()}, "server: none given"),
        ({"servers": ("dc1",)}, "server 'dc1': expected ldaps://HOST"),
        ({"servers": ("https://dc1",)}, "server 'https://dc1': expected ldaps://HOST"),
        ({"servers": ("ldap://dc1:x",)}, "expected ldaps://HOST"),
        ({"servers": ("ldap://dc1/dc=corp",)}, "expected ldaps://HOST"),
        ({"servers": ("ldap://me@dc1",)}, "expected ldaps://HOST"),
        ({"servers": ("ldap://dc1/??sub?(uid=*)",)}, "expected ldaps://HOST"),
        ({"base": ""}, "base: none given"),
        ({"plain": True}, "plain: an ldaps:// server is never without TLS"),
        ({"timeout": 0}, "timeout 0: expected"),
        ({"timeout": 61}, "timeout 61: expected"),
        ({"user_filter": "(objectClass=person"}, "user filter '(objectClass=person': "),
        ({"group_filter": ")("}, "group filter ')(': "),
        ({"user_filter": ""}, "user filter '': "),
        ({"login": "uid=*"}, "login 'uid=*': expected the name of an attribute"),
        ({"subject": ""}, "subject '': expected the name of an attribute"),
        ({"membership": "all"}, "membership 'all': expected one of member, memberof, chain"),
    ],
)
def test_a_mistake_is_named(other: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as error:
        Settings(**{**GOOD, **other})
    assert why in str(error.value)
