"""aiohttp through a tunnel: `aiohttp.ClientSession(connector=await tunnel_connector(tunnel))`."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from wgpy.rootless.tunnel import RootlessTunnel


async def tunnel_connector(tunnel: RootlessTunnel, **options: Any) -> aiohttp.TCPConnector:
    """Make a connector whose connections go through the tunnel, and whose host names the tunnel's DNS resolves.

    `options` are passed to aiohttp.TCPConnector. Raises TunnelClosedError; requests raise aiohttp's own errors.
    """
    if tunnel.network == "stack":
        tunnel.check_open()
        return _StackConnector(tunnel, resolver=_Resolver(tunnel), **options)
    make = await tunnel.socket_factory()

    def socket_factory(info: Any) -> socket.socket:
        family, kind, protocol, *_ = info
        return make(family, kind, protocol)

    return aiohttp.TCPConnector(resolver=_Resolver(tunnel), socket_factory=socket_factory, **options)


class _StackConnector(aiohttp.TCPConnector):
    """Where there are no sockets to give aiohttp, it gets connections: there is no public place to hand them over."""

    def __init__(self, tunnel: RootlessTunnel, **options: Any) -> None:
        super().__init__(**options)
        self._tunnel = tunnel

    async def _wrap_create_connection(  # type: ignore[override]  # whatever else it may come to be given
        self,
        protocol_factory: Any,
        *arguments: Any,
        addr_infos: Any,
        req: aiohttp.ClientRequest,
        timeout: aiohttp.ClientTimeout,
        client_error: type[aiohttp.ClientConnectorError] = aiohttp.ClientConnectorError,
        **options: Any,
    ) -> tuple[asyncio.Transport, Any]:
        failure: OSError = OSError("no address to connect to")
        try:
            async with asyncio.timeout(timeout.sock_connect):
                for *_, address in addr_infos:
                    try:
                        return await self._tunnel.create_connection(
                            protocol_factory,
                            address[0],
                            address[1],
                            ssl=options.get("ssl"),
                            server_hostname=options.get("server_hostname"),
                        )
                    except ssl.SSLError:
                        raise
                    except OSError as error:
                        failure = error
                raise failure
        except ssl.CertificateError as error:
            raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error
        except ssl.SSLError as error:
            raise aiohttp.ClientConnectorSSLError(req.connection_key, error) from error
        except TimeoutError as error:
            if error.errno is None:  # ours, which aiohttp makes its own of
                raise
            raise client_error(req.connection_key, error) from error
        except OSError as error:
            raise client_error(req.connection_key, error) from error


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
