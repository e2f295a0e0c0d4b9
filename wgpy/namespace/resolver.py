"""Names by the configuration's DNS, through the tunnel: dnspython's resolver over sockets of the namespace.

dnspython is imported here, so this is imported when the first name is resolved.
"""

# ruff: noqa: ASYNC109 (these parameters are dnspython's)

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from socket import AF_INET, AF_INET6, EAI_AGAIN, EAI_NONAME, SOCK_STREAM
from socket import socket as Socket
from typing import Any, Final

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver

from wgpy.config.values import InterfaceConfig
from wgpy.errors import ResolveError

LIFETIME: Final = 10.0  # seconds for a name, all servers and repetitions included

MakeSocket = Callable[[int, int], Awaitable[Socket]]


async def resolve(host: str, families: Collection[int], config: InterfaceConfig, make_socket: MakeSocket) -> list[str]:
    """A host's addresses of the given families, IPv6 first. Raises ResolveError: no server, no answer, no such name."""
    if not config.dns:
        raise ResolveError(f"{host}: the configuration names no server: add DNS = ADDRESS to [Interface]")
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = list(config.dns)
    resolver.search = [dns.name.from_text(domain) for domain in config.dns_search]
    resolver.lifetime = LIFETIME
    backend = _Backend(make_socket)
    kinds = [kind for family, kind in ((AF_INET6, "AAAA"), (AF_INET, "A")) if family in families]
    asked = [resolver.resolve(host, kind, search=True, backend=backend) for kind in kinds]
    found: list[str] = []
    failures: list[BaseException] = []
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(answer, dns.exception.DNSException):
            failures.append(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found += [record.address for record in answer]
    if not found:
        # That one family has no address says less than what became of the other.
        failures.sort(key=lambda failure: isinstance(failure, dns.resolver.NoAnswer))
        reason = " ".join(str(failures[0]).split()) if failures else "the tunnel has no address of that family"
        cause = failures[0] if failures else None
        may_pass = isinstance(cause, dns.exception.Timeout | dns.resolver.NoNameservers)
        raise ResolveError(f"{host}: {reason}", EAI_AGAIN if may_pass else EAI_NONAME) from cause
    return found


class _Backend(dns.asyncbackend.Backend):  # type: ignore[misc, name-defined]
    """What dnspython asks of an event loop, with sockets that are not the host's."""

    def __init__(self, make_socket: MakeSocket) -> None:
        self._make_socket = make_socket

    def name(self) -> str:
        return "asyncio"

    def datagram_connection_required(self) -> bool:
        return True

    async def make_socket(
        self,
        af: int,
        socktype: int,
        proto: int = 0,
        source: Any = None,
        destination: Any = None,
        timeout: float | None = None,
        ssl_context: Any = None,
        server_hostname: str | None = None,
    ) -> _Socket:
        sock = await self._make_socket(af, socktype)
        try:
            await self.wait_for(asyncio.get_running_loop().sock_connect(sock, destination), timeout)
        except BaseException:
            sock.close()
            raise
        return _StreamSocket(sock) if socktype == SOCK_STREAM else _DatagramSocket(sock)

    async def sleep(self, interval: float) -> None:
        await asyncio.sleep(interval)

    async def wait_for(self, awaitable: Awaitable[Any], timeout: float | None) -> Any:
        return await _in_time(awaitable, timeout)


class _Socket:
    def __init__(self, sock: Socket) -> None:
        super().__init__(sock.family, sock.type)  # type: ignore[call-arg]  # of dnspython's class beside this one
        self._socket = sock
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        self._socket.close()

    async def getpeername(self) -> Any:
        return self._socket.getpeername()

    async def getsockname(self) -> Any:
        return self._socket.getsockname()


class _DatagramSocket(_Socket, dns.asyncbackend.DatagramSocket):  # type: ignore[misc, name-defined]
    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:
        await _in_time(self._loop.sock_sendall(self._socket, what), timeout)
        return len(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:
        return await _in_time(self._loop.sock_recv(self._socket, size), timeout), self._socket.getpeername()


class _StreamSocket(_Socket, dns.asyncbackend.StreamSocket):  # type: ignore[misc, name-defined]
    async def sendall(self, what: bytes, timeout: float | None) -> None:
        await _in_time(self._loop.sock_sendall(self._socket, what), timeout)

    async def recv(self, size: int, timeout: float | None) -> Any:
        return await _in_time(self._loop.sock_recv(self._socket, size), timeout)


async def _in_time(awaitable: Awaitable[Any], timeout: float | None) -> Any:
    try:
        return await asyncio.wait_for(awaitable, timeout)
    except TimeoutError:
        raise dns.exception.Timeout from None
