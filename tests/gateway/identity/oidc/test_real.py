"""Canaille, a provider that we did not write: people sign in there, change groups, are disabled, and sign out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support.canaille import CLIENT, USERS, Canaille, browser, sign_in
from wgpy.gateway.identity.directory import Confirmed, Refused, Unavailable
from wgpy.gateway.identity.oidc import Provider
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.oidc import Settings

HERE = "https://vpn.example.org/sign-in/directory/corp/callback"

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("canaille")]


@pytest.fixture(scope="module")
def canaille(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canaille]:
    with Canaille(tmp_path_factory.mktemp("canaille"), [HERE]) as provider:
        yield provider


@pytest.fixture(autouse=True)
def as_at_first(canaille: Canaille) -> None:
    for user, groups in USERS.items():
        canaille.set_groups(user, *groups)
        canaille.lock(user, locked=False)


@asynccontextmanager
async def client(canaille: Canaille, secret: str = CLIENT[1], ca: str | None = None) -> AsyncIterator[Provider]:
    """The client for the provider."""
    trusted = canaille.ca.read_text() if ca is None else ca
    settings = Settings(issuer=canaille.issuer, client_id=CLIENT[0], ca=trusted)
    provider = Provider(Directory(name="corp", kind="oidc", settings=settings.json()), secret.encode())
    try:
        yield provider
    finally:
        await provider.close()


async def signed_in(provider: Provider, canaille: Canaille, user: str) -> Confirmed:
    """Sign in with a new browser."""
    with browser(canaille.ca) as person:
        url, attempt = await provider.begin(HERE)
        back = await asyncio.to_thread(sign_in, person, url, user, HERE)
        return await provider.finish(attempt, dict(parse_qsl(urlsplit(back).query)), HERE)


def test_people_sign_in_and_their_groups_follow_the_provider(canaille: Canaille) -> None:
    async def scenario() -> None:
        async with client(canaille) as provider:
            assert (await provider.probe())["issuer"] == canaille.issuer
            found = {user: await signed_in(provider, canaille, user) for user in USERS}
            for user, groups in USERS.items():
                person = found[user].person
                assert (person.name, person.email) == (user, f"{user}@example.org")
                assert person.groups == {*groups}
            assert found["alice"].person.subject != found["bob"].person.subject
            again = await signed_in(provider, canaille, "alice")
            assert again.person == found["alice"].person
            canaille.set_groups("alice", "vpn-ops")
            checked = await check(provider, again)
            assert checked
            assert checked.person.groups == {"vpn-ops"}
            assert (await check(provider, checked)) is not None

    asyncio.run(scenario())


async def check(provider: Provider, confirmed: Confirmed) -> Confirmed | None:
    """Ask again, in another second: Canaille's access tokens of one second are equal, and one of them is revoked."""
    await asyncio.sleep(1.01 - time.time() % 1)
    assert confirmed.person.subject
    assert confirmed.token
    return await provider.check(confirmed.person.subject, confirmed.token)


def test_who_is_disabled_there_is_gone_and_stays_so_until_they_sign_in_again(canaille: Canaille) -> None:
    async def scenario() -> None:
        async with client(canaille) as provider:
            alice, bob = [await signed_in(provider, canaille, user) for user in ("alice", "bob")]
            canaille.lock("alice")
            assert await check(provider, alice) is None
            assert await check(provider, bob)
            with pytest.raises(AssertionError, match="no way back"):
                await signed_in(provider, canaille, "alice")
            canaille.lock("alice", locked=False)
            assert (await signed_in(provider, canaille, "alice")).person == alice.person

    asyncio.run(scenario())


def test_a_code_that_was_used_or_is_another_browsers_is_refused_by_the_provider_too(canaille: Canaille) -> None:
    async def scenario() -> None:
        async with client(canaille) as provider:
            with browser(canaille.ca) as person:
                url, attempt = await provider.begin(HERE)
                answer = dict(parse_qsl(urlsplit(sign_in(person, url, "alice", HERE)).query))
                assert answer["iss"] == canaille.issuer
                await provider.finish(attempt, answer, HERE)
                with pytest.raises(Refused, match="does not know this sign-in"):
                    await provider.finish(attempt, answer, HERE)
                url, _ = await provider.begin(HERE)
                answer = dict(parse_qsl(urlsplit(sign_in(person, url, "alice", HERE)).query))
                _, other = await provider.begin(HERE)
                with pytest.raises(Refused, match="does not know this sign-in"):  # PKCE
                    await provider.finish(other, {**answer, "state": other.state}, HERE)

    asyncio.run(scenario())


def test_a_wrong_secret_or_certificate_or_a_provider_that_is_down_is_named(canaille: Canaille, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with client(canaille, secret="wrong") as provider:
            with pytest.raises(Unavailable, match="does not know this client, or the secret is wrong"):
                await signed_in(provider, canaille, "alice")
        async with client(canaille, ca="") as provider:
            with pytest.raises(Unavailable, match="certificate"):
                await provider.begin(HERE)
        with Canaille(tmp_path, [HERE]) as short:
            pass
        async with client(short) as provider:
            with pytest.raises(Unavailable, match="directory corp: https://localhost:"):
                await provider.begin(HERE)

    asyncio.run(scenario())


def test_signing_out_here_signs_the_browser_out_there(canaille: Canaille) -> None:
    async def scenario() -> None:
        async with client(canaille) as provider:
            with browser(canaille.ca) as person:
                url, attempt = await provider.begin(HERE)
                answer = dict(parse_qsl(urlsplit(sign_in(person, url, "alice", HERE)).query))
                found = await provider.finish(attempt, answer, HERE)
                url, _ = await provider.begin(HERE)
                assert person.get(url).headers["location"].startswith(HERE)  # without a password
                out = await provider.sign_out_url(found.token, "https://vpn.example.org/sign-in")
                answered = person.get(out)
                assert answered.headers["location"].startswith("https://vpn.example.org/sign-in")
                url, _ = await provider.begin(HERE)
                assert not person.get(url).headers.get("location", "").startswith(HERE)

    asyncio.run(scenario())
