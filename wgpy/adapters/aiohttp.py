"""aiohttp through a tunnel: `aiohttp.ClientSession(connector=await tunnel_connector(tunnel))`."""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from wgpy.rootless.tunnel import RootlessTunnel


async def tunnel_connector(tunnel: RootlessTunnel, **options: Any) -> aiohttp.TCPConnector:
    """Make a connector whose connections go through the tunnel, and whose host names the tunnel's DNS resolves.

    `options` are passed to aiohttp.TCPConnector. Raises TunnelClosedError; requests raise aiohttp's own errors.
    """
    make = await tunnel.socket_factory()

    def socket_factory(info: Any) -> socket.socket:
        family, kind, protocol, *_ = info
        return make(family, kind, protocol)

    return aiohttp.TCPConnector(resolver=_Resolver(tunnel), socket_factory=socket_factory, **options)


class _Resolver(AbstractResolver):
    def __init__(self, tunnel: RootlessTunnel) -> None:
        self._tunnel = tunnel

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._tunnel.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        return [
            ResolveResult(
                hostname=host, host=address[0], port=port, family=kind, proto=protocol, flags=socket.AI_NUMERICHOST
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Nothing to close."""
