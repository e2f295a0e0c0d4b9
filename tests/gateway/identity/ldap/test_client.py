"""A directory as the gateway's event loop asks it."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.identity.slapd import BASE, Slapd
from wgpy.gateway.identity import directory as identity
from wgpy.gateway.identity.directory import Confirmed, Unavailable
from wgpy.gateway.identity.ldap.client import LdapClient
from wgpy.gateway.identity.ldap.people import Denied
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.people import Person

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("slapd")]


def opened(server: Slapd, **other: object) -> LdapClient:
    settings = server.settings(**other).json()
    client = identity.client(Directory(name="corp", kind="ldap", settings=settings), b"seeks")
    assert isinstance(client, LdapClient)
    return client


def test_probe_and_check(server: Slapd) -> None:
    async def run() -> None:
        client = opened(server)
        seen = await client.probe()
        assert seen["server"] == server.url()
        assert seen["people"] > 5
        found = [server.open().sign_in(name, f"{name}'s own", 0.0) for name in ("alice", "bob")]
        alice, bob = [person for person in found if isinstance(person, Person)]
        asked = await asyncio.gather(
            *(client.check(each or "", b"") for each in (alice.subject, bob.subject, "nobody"))
        )
        assert asked == [Confirmed(alice), Confirmed(bob), None]

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
