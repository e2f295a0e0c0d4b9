"""The API, asked by an administrator at the unix socket and by programs with tokens."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any, Final

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.gateway.web.conftest import URL
from wgpy.gateway.enforcement.dataplane import DataPlane
from wgpy.gateway.policy.tokens import SCOPES, Token
from wgpy.gateway.store import tokens
from wgpy.gateway.web.api.app import application as api
from wgpy.gateway.web.app import application
from wgpy.gateway.web.site import Site

SCHEMA: Final[dict[str, Any]] = api().openapi()  # once for all, because it takes half a second
ME = pwd.getpwuid(os.geteuid()).pw_name
API = Callable[..., TestClient]


class AtSocket:
    """An application as if it were asked at the unix socket, by this process's user."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"peer": os.geteuid()}
        await self._app(scope, receive, send)


@pytest.fixture
def admin(site: Site, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """An administrator at the unix socket."""
    host: dict[str, Any] = {"this host's address on eth0,": [ip_network("192.0.2.1/32")]}
    monkeypatch.setattr(DataPlane, "networks_of_host", lambda self, *interfaces: host)
    return TestClient(AtSocket(application(site)), "http://gateway/api/v1")


@pytest.fixture
def program(site: Site) -> API:
    """Makes a program with a token of these scopes; without any, one without a token."""

    def make(*scopes: str, expires: float | None = None) -> TestClient:
        headers = {}
        if scopes:
            token = Token(name="-".join(scopes), scopes=frozenset(scopes), made_at=1.0, expires=expires)
            with site.database.change("root") as change:
                headers["Authorization"] = f"Bearer {tokens.add(change, token)}"
        return TestClient(application(site), f"{URL}/api/v1", client=("192.0.2.9", 50000), headers=headers)

    assert SCOPES
    return make
