"""Requests to a provider: over TLS that is verified, to where the settings or the provider's document say and nowhere
else, with answers that are bounded in time and size.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import httpx2

from wgpy.gateway.identity import trust
from wgpy.gateway.identity.directory import Unavailable

TIMEOUT: Final = 10.0  # seconds for one answer, all of it
LONGEST: Final = 1 << 20  # bytes of one answer
MOST: Final = 16  # requests to one provider at the same time
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}  # nothing that grows when unpacked


class Answer(NamedTuple):
    """An answer of the provider."""

    status: int
    values: dict[str, Any]
    """The JSON object that it has."""


class Http:
    """Requests to the provider of the directory `name`, whose certificate is checked against `ca`, or the system's.

    Raises ConfigError if `ca` is not certificates in PEM.
    """

    def __init__(self, name: str, ca: str = "", transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._name = name
        self._client = httpx2.AsyncClient(
            verify=trust.context(ca or None),
            transport=transport,
            headers=_HEADERS,
            timeout=TIMEOUT,
            limits=httpx2.Limits(max_connections=MOST, max_keepalive_connections=MOST, keepalive_expiry=60.0),
            follow_redirects=False,
        )

    async def get(self, url: str, bearer: str = "") -> Answer:
        """Ask for a JSON object. Raises Unavailable."""
        return await self._ask("GET", url, {"Authorization": f"Bearer {bearer}"} if bearer else {}, None)

    async def post(self, url: str, form: Mapping[str, str], basic: tuple[str, str] | None = None) -> Answer:
        """Send a form, with HTTP's basic authentication if a name and a password are given. Raises Unavailable."""
        auth = httpx2.BasicAuth(*basic) if basic else None
        return await self._ask("POST", url, {}, form, auth)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None,
        auth: httpx2.BasicAuth | None = None,
    ) -> Answer:
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                self._client.stream(method, url, headers=headers, data=form, auth=auth) as response,
            ):
                body = await self._body(url, response)
        except TimeoutError:
            raise self.unavailable(f"no answer in {TIMEOUT:g} seconds from {url}") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, ValueError) as error:
            raise self.unavailable(f"{url}: {_reason(error)}") from error
        if response.is_redirect:
            raise self.unavailable(f"{url} sends us elsewhere, where we do not go")
        try:
            values = json.loads(body) if body else {}
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            return Answer(response.status_code, values)
        if response.is_success:
            raise self.unavailable(f"{url} does not answer with a JSON object")
        return Answer(response.status_code, {})

    async def _body(self, url: str, response: httpx2.Response) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self.unavailable(f"{url} answers in an encoding that was not asked for")
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > LONGEST:
                raise self.unavailable(f"{url} answers with more than {LONGEST} bytes")
        return bytes(body)

    def unavailable(self, why: str) -> Unavailable:
        """The error that the directory cannot be asked, or believed."""
        return Unavailable(f"directory {self._name}: {why}")


def _reason(error: Exception) -> str:
    """What went wrong, in one line. httpx leaves some texts empty."""
    return " ".join(str(error).split()) or type(error).__name__
