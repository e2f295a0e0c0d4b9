"""A directory as the gateway's event loop asks it."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.identity.slapd import BASE, Slapd
from wgpy.gateway.identity import directory as identity
from wgpy.gateway.identity.directory import Confirmed, Unavailable
from wgpy.gateway.identity.ldap import client as module
from wgpy.gateway.identity.ldap.client import LdapClient
from wgpy.gateway.identity.ldap.people import Denied
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.people import Person


def opened(server: Slapd, **other: object) -> LdapClient:
    settings = server.settings(**other).json()
    client = identity.client(Directory(name="corp", kind="ldap", settings=settings), b"seeks")
    assert isinstance(client, LdapClient)
    return client


def test_sign_in_and_check(server: Slapd) -> None:
    async def run() -> None:
        client = opened(server)
        seen = await client.probe()
        assert seen["server"] == server.url()
        assert seen["people"] > 5
        alice, bob = await asyncio.gather(client.sign_in("alice", "alice's own"), client.sign_in("bob", "bob's own"))
        assert isinstance(alice, Confirmed)
        assert isinstance(bob, Confirmed)
        assert await client.sign_in("alice", "another") == Denied("invalid credentials")
        subjects = [alice.person.subject or "", bob.person.subject or "", "nobody"]
        assert await asyncio.gather(*(client.check(subject, b"") for subject in subjects)) == [alice, bob, None]

    asyncio.run(run())


def test_many_who_are_checked_at_once_are_one_question(server: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        client = opened(server)
        asked: list[int] = []
        check = client._people.check

        def counted(subjects: set[str], wall: float) -> dict[str, Person | Denied]:
            asked.append(len(subjects))
            return check(subjects, wall)

        monkeypatch.setattr(client._people, "check", counted)
        assert await asyncio.gather(*(client.check(str(number), b"") for number in range(500))) == [None] * 500
        assert asked == [500]

    asyncio.run(run())


def test_what_waits_is_bounded(server: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 3)

    async def run() -> None:
        client = opened(server)
        tries = [client.sign_in("alice", "alice's own") for _ in range(5)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(each, Confirmed) for each in results) == 3
        assert sum(isinstance(each, Unavailable) for each in results) == 2
        assert isinstance(await client.sign_in("alice", "alice's own"), Confirmed)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"base": f"ou=groups,{BASE}"}, "nobody with uid is below ou=groups,dc=example,dc=org that cn=searcher"),
        ({"subject": "employeeNumber"}, "has no employeeNumber that cn=searcher"),
    ],
)
def test_a_probe_says_what_cannot_work(other: dict[str, object], why: str, server: Slapd) -> None:
    with pytest.raises(Unavailable, match=why):
        asyncio.run(opened(server, **other).probe())
