"""httpx, aiohttp, requests and urllib3 as an unprivileged user, through a tunnel to Debian's wireguard-go."""

from __future__ import annotations

import asyncio
import ssl
import tempfile

import aiohttp
import httpx
import pytest
import requests
import urllib3

import wgpy
import wgpy.blocking
from tests.adapters.conftest import NAME, PAGE, Web
from tests.support.nobody import as_nobody
from wgpy.adapters.aiohttp import tunnel_connector
from wgpy.adapters.httpx import TunnelTransport
from wgpy.adapters.requests import TunnelAdapter, through_tunnel

pytestmark = pytest.mark.root


@pytest.mark.usefixtures("network")
def test_httpx(web: Web) -> None:
    async def main() -> None:
        verify = ssl.create_default_context(cadata=web.authority)
        async with wgpy.connect(web.config) as tunnel:
            async with httpx.AsyncClient(transport=TunnelTransport(tunnel, verify=verify)) as client:
                for url in (web.http, web.https, web.https):
                    assert (await client.get(url)).text == PAGE
                async with client.stream("GET", web.http) as answer:
                    assert "".join([part async for part in answer.aiter_text()]) == PAGE
                with pytest.raises(httpx.ConnectError, match=r"nowhere\.corp\.test"):
                    await client.get("http://nowhere.corp.test/")
                with pytest.raises(httpx.ConnectError):
                    await client.get(f"http://{NAME}:1/")
                with pytest.raises(httpx.TimeoutException):
                    await client.get(web.http, timeout=1e-6)
            async with httpx.AsyncClient(transport=TunnelTransport(tunnel)) as client:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
                    await client.get(web.https)

    as_nobody(web.client, main)


@pytest.mark.usefixtures("network")
def test_aiohttp(web: Web) -> None:
    async def main() -> None:
        verify = ssl.create_default_context(cadata=web.authority)
        async with (
            wgpy.connect(web.config) as tunnel,
            aiohttp.ClientSession(connector=await tunnel_connector(tunnel)) as session,
        ):
            for url, tls in ((web.http, True), (web.https, verify)):
                async with session.get(url, ssl=tls) as answer:
                    assert await answer.text() == PAGE
            pages = await asyncio.gather(*(fetch(session, web.http) for _ in range(50)))
            assert pages == [PAGE] * 50
            with pytest.raises(aiohttp.ClientConnectorError, match="nowhere"):
                await session.get("http://nowhere.corp.test/")
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(web.http.replace("8000", "1"))

    async def fetch(session: aiohttp.ClientSession, url: str) -> str:
        async with session.get(url) as answer:
            return await answer.text()

    as_nobody(web.client, main)


@pytest.mark.usefixtures("network")
def test_requests_and_urllib3(web: Web) -> None:
    async def main() -> None:  # asyncio has nothing to do with what runs in there
        await asyncio.to_thread(blocking)

    def blocking() -> None:
        with tempfile.NamedTemporaryFile("w") as file, wgpy.blocking.connect(web.config) as tunnel:
            file.write(web.authority)
            file.flush()
            with requests.Session() as session:
                for scheme in ("http://", "https://"):
                    session.mount(scheme, TunnelAdapter(tunnel))
                for url in (web.http, web.https):
                    assert session.get(url, verify=file.name, timeout=10).text == PAGE
                with pytest.raises(requests.ConnectionError, match="nowhere"):
                    session.get("http://nowhere.corp.test/")
                with pytest.raises(requests.ConnectTimeout):
                    session.get(web.http, timeout=1e-6)
                with pytest.raises(requests.exceptions.SSLError):
                    session.get(web.https)
            manager = through_tunnel(urllib3.PoolManager(), tunnel)
            assert manager.request("GET", web.http).data.decode() == PAGE

    as_nobody(web.client, main)
