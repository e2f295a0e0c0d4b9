"""A browser without a screen, for tests: it keeps cookies, follows redirects, and calls the application itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

ORIGIN = "https://vpn.example.org"


class Browser:
    """Requests to an ASGI application, which believes that they come from `source` over HTTPS."""

    def __init__(self, app: Any, source: str = "192.0.2.7", origin: str = ORIGIN) -> None:
        transport = httpx.ASGITransport(app, client=(source, 40000))
        self.origin = origin
        self._client = httpx.AsyncClient(transport=transport, base_url=origin)

    @property
    def cookies(self) -> httpx.Cookies:
        return self._client.cookies

    def get(self, path: str, *, follow: bool = True, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return asyncio.run(self._client.get(path, follow_redirects=follow, headers=headers))

    def post(
        self, path: str, form: Mapping[str, str], *, follow: bool = True, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a form, as a page of the same site would."""
        sent = {"Origin": self.origin, **(headers or {})}
        return asyncio.run(self._client.post(path, data=form, follow_redirects=follow, headers=sent))
