"""dex, another provider that we did not write: what it says, what it does not, and what a restart of it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest

from tests.support.canaille import sign_in
from tests.support.dex import CLIENT, PROGRAM, dex
from wgpy.gateway.identity.directory import Confirmed, Unavailable
from wgpy.gateway.identity.oidc import Provider
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.oidc import Settings

HERE = "https://vpn.example.org/sign-in/directory/corp/callback"

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not PROGRAM, reason="needs dex, which tests/support/packages.sh builds where Go is"),
]


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Provider]:
    settings = Settings(issuer=f"http://127.0.0.1:{port}/dex", client_id=CLIENT[0])
    provider = Provider(Directory(name="corp", kind="oidc", settings=settings.json()), CLIENT[1].encode())
    try:
        yield provider
    finally:
        await provider.close()


async def signed_in(provider: Provider, user: str = "") -> Confirmed:
    url, attempt = await provider.begin(HERE)
    with httpx2.Client() as person:
        back = await asyncio.to_thread(sign_in, person, url, user, HERE)
    return await provider.finish(attempt, dict(parse_qsl(urlsplit(back).query)), HERE)


def test_people_sign_in_and_are_asked_about_until_dex_forgets_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        with dex(tmp_path, HERE) as port:
            async with client(port) as provider:
                scopes = (await provider.probe())["scopes"]
                assert scopes == ["openid", "profile", "email", "groups", "offline_access"]
                found = await signed_in(provider, "alice@example.org")
                assert (found.person.name, found.person.display_name) == ("alice@example.org", "alice")
                for _ in range(3):  # each refresh token is for one use
                    again = await check(provider, found)
                    assert again
                    assert again.person == found.person
                    found = again
                assert await provider.sign_out_url(found.token, "https://vpn.example.org/") == ""  # it has no such page
        async with client(port) as provider:
            with pytest.raises(Unavailable):
                await check(provider, found)
        with dex(tmp_path, HERE, port):
            async with client(port) as provider:
                assert await check(provider, found) is None  # and so has to sign in again

    asyncio.run(scenario())


async def check(provider: Provider, confirmed: Confirmed) -> Confirmed | None:
    assert confirmed.person.subject
    assert confirmed.token
    return await provider.check(confirmed.person.subject, confirmed.token)


def test_groups_of_a_connector(tmp_path: Path) -> None:
    async def scenario() -> None:
        with dex(tmp_path, HERE, connector="mockCallback") as port:
            async with client(port) as provider:
                found = await signed_in(provider)
                assert found.person.groups == {"authors"}
                again = await check(provider, found)
                assert again
                assert again.person == found.person

    asyncio.run(scenario())
