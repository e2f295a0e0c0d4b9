"""Names by the configuration's DNS: dnspython's resolver over datagrams and connections of a tunnel.

dnspython is imported here, so this is imported when the first name is resolved.
"""

# ruff: noqa: ASYNC109 (these parameters are dnspython's)

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from socket import AF_INET, AF_INET6, EAI_AGAIN, EAI_NONAME, SOCK_STREAM
from typing import TYPE_CHECKING, Any, Final, cast

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver

from wgpy.errors import ResolveError

if TYPE_CHECKING:
    from wgpy.rootless.tunnel import RootlessTunnel

LIFETIME: Final = 10.0  # seconds for a name, all servers and repetitions included

_MOST_ANSWERS: Final = 64  # that wait, of one question; more are somebody's flood


async def resolve(host: str, families: Collection[int], tunnel: RootlessTunnel) -> list[str]:
    """A host's addresses of the given families, IPv6 first. Raises ResolveError: no server, no answer, no such name."""
    config = tunnel.config
    if not config.dns:
        raise ResolveError(f"{host}: the configuration names no server: add DNS = ADDRESS to [Interface]")
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = list(config.dns)
    resolver.search = [dns.name.from_text(domain) for domain in config.dns_search]
    resolver.lifetime = LIFETIME
    backend = _Backend(tunnel)
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
    """What dnspython asks of an event loop, in the tunnel's network."""

    def __init__(self, tunnel: RootlessTunnel) -> None:
        self._tunnel = tunnel

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
    ) -> _Datagrams | _Stream:
        host, port = destination[:2]
        if socktype == SOCK_STREAM:
            return _Stream(af, destination, *await _in_time(self._tunnel.open_connection(host, port), timeout))
        opening = self._tunnel.create_datagram_endpoint(lambda: _Answers(), remote_addr=(host, port))
        return _Datagrams(af, destination, *await _in_time(opening, timeout))

    async def sleep(self, interval: float) -> None:
        await asyncio.sleep(interval)

    async def wait_for(self, awaitable: Awaitable[Any], timeout: float | None) -> Any:
        return await _in_time(awaitable, timeout)


class _Answers(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes | Exception] = asyncio.Queue(_MOST_ANSWERS)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.received.full():
            self.received.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        if not self.received.full():
            self.received.put_nowait(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.error_received(exc)


class _Datagrams(dns.asyncbackend.DatagramSocket):  # type: ignore[misc, name-defined]
    def __init__(self, af: int, peer: Any, transport: asyncio.DatagramTransport, answers: _Answers) -> None:
        super().__init__(af, 0)
        self._peer, self._transport, self._answers = peer, transport, answers

    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:
        self._transport.sendto(what)
        return len(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:
        received = await _in_time(self._answers.received.get(), timeout)
        if isinstance(received, Exception):
            raise received
        return received, self._peer

    async def close(self) -> None:
        self._transport.close()

    async def getpeername(self) -> Any:
        return self._peer

    async def getsockname(self) -> Any:
        return self._transport.get_extra_info("sockname")


class _Stream(dns.asyncbackend.StreamSocket):  # type: ignore[misc, name-defined]
    def __init__(self, af: int, peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(af, SOCK_STREAM)
        self._peer, self._reader, self._writer = peer, reader, writer

    async def sendall(self, what: bytes, timeout: float | None) -> None:
        self._writer.write(what)
        await _in_time(self._writer.drain(), timeout)

    async def recv(self, size: int, timeout: float | None) -> bytes:
        return cast(bytes, await _in_time(self._reader.read(size), timeout))

    async def close(self) -> None:
        self._writer.close()

    async def getpeername(self) -> Any:
        return self._peer

    async def getsockname(self) -> Any:
        return self._writer.get_extra_info("sockname")


async def _in_time(awaitable: Awaitable[Any], timeout: float | None) -> Any:
    try:
        return await asyncio.wait_for(awaitable, timeout)
    except TimeoutError:
        raise dns.exception.Timeout from None
