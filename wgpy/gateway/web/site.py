"""What the handlers of requests work with."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from wgpy.errors import ConfigError
from wgpy.gateway.identity.directory import Clients
from wgpy.gateway.identity.passwords import Hasher
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.sessions import Traffic
from wgpy.gateway.policy.traffic import Rate
from wgpy.gateway.store.database import Database
from wgpy.gateway.web.attempts import Attempts


class Service(Protocol):
    """The running gateway, as `wgpy.gateway.service.gateway.Gateway`."""

    counts: Counter[tuple[str, str]]
    total: Traffic
    ailment: str

    def rates(self) -> list[Rate]: ...
    @property
    def endpoint(self) -> Endpoint: ...
    @property
    def active(self) -> int: ...
    @property
    def stalled(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The gateway that is served."""

    database: Database
    service: Service
    proxy: Address | None = None
    """The reverse proxy that all requests over TCP come through; None if they come directly, over TLS."""
    wall: Callable[[], float] = time.time
    """The time in seconds since 1970."""
    hasher: Hasher = field(default_factory=Hasher)
    throttle: Attempts = field(default_factory=Attempts)
    """Of attempts to sign in."""
    clients: Clients = field(init=False)
    """Of the directories; they belong to the event loop that serves."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "clients", Clients(self.database))

    @property
    def url(self) -> str:
        """The origin under which browsers find the pages, such as "https://vpn.example.org", or an empty text."""
        return self.service.endpoint.url

    @property
    def host(self) -> str:
        """What browsers send as Host."""
        return urlsplit(self.url).netloc


def site_of(request: HTTPConnection) -> Site:
    """The gateway that this request is to."""
    found: Site = request.state.site
    return found


def peer_of(scope: Mapping[str, Any]) -> int | None:
    """The user id of the program at the other end of the unix socket, who is an administrator; None over TCP."""
    uid: int | None = scope.get("state", {}).get("peer")
    return uid


def address_of(request: HTTPConnection) -> Address | None:
    """The address that the request comes from, behind a proxy the one that the proxy names; None at the unix socket."""
    return ip_address(request.client.host) if request.client and request.client.host else None


def require_url(endpoint: Endpoint) -> str:
    """The origin of the pages. Raises ConfigError if none is set."""
    if not endpoint.url:
        raise ConfigError(
            "endpoint: has no url, which browsers and programs are to use; `wgpy gateway endpoint set --url "
            f"https://{endpoint.host}` sets one"
        )
    return endpoint.url
