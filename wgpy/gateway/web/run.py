"""The web server beside a gateway that runs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.portal import Service
from wgpy.gateway.service.gateway import Gateway
from wgpy.gateway.service.run import Beside
from wgpy.gateway.store.database import Database
from wgpy.gateway.web.app import application
from wgpy.gateway.web.certificate import Certificate, own_certificate
from wgpy.gateway.web.server import WebServer, socket_path
from wgpy.gateway.web.site import Site, require_url

log: Final = logging.getLogger("wgpy.gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Https:
    """Where to serve over TCP, and by which certificate: a given one, one of our own, or a proxy's."""

    address: str
    """HOST:PORT."""
    certificate: tuple[Path, Path] | None = None
    """The files of a certificate chain and its key."""
    proxy: Address | None = None
    """The proxy that has a certificate, and alone may connect here, without TLS."""

    def portal(self, endpoint: Endpoint) -> Service:
        """Where a client's browser finds the pages; behind a proxy, that is at the proxy, by the port of the `url`."""
        host, _, port = self.address.rpartition(":")
        if self.proxy:
            address, number = None if self.proxy.is_loopback else self.proxy, urlsplit(endpoint.url).port or 443
        else:
            address, number = _listening(host.strip("[]")), int(port) if port.isdecimal() else 0
        return Service("tcp", number, address)


def beside(database: Database, directory: Path, https: Https | None = None) -> Beside:
    """What serves the API at the gateway's unix socket and, if asked, everything over HTTPS.

    A certificate of our own is kept in the directory.
    """

    @asynccontextmanager
    async def served(gateway: Gateway) -> AsyncIterator[None]:
        proxy = https.proxy if https else None
        site = Site(database=database, service=gateway, proxy=proxy, wall=database.clock)
        server = WebServer(application(site))
        try:
            server.listen_unix(socket_path(gateway.interface))
            if https:
                server.listen_tcp(https.address, _certificate(directory, gateway, https), https.proxy)
            yield
        finally:
            await server.close()
            await site.clients.close()

    return served


def _listening(host: str) -> Address | None:
    """The address to listen at; None for all of this host, and for a name, which may be any of them.

    A server at :: listens at addresses of IPv4, too.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return None if address == IPv6Address("::") else address


def _certificate(directory: Path, gateway: Gateway, https: Https) -> Certificate | None:
    url = require_url(gateway.endpoint)
    if https.proxy:
        return None
    if https.certificate:
        return Certificate(*https.certificate)
    own = own_certificate(directory / "https.pem", url, datetime.now(UTC))
    log.info("%s: a certificate of our own, with the SHA-256 fingerprint %s", url, own.fingerprint())
    return own
