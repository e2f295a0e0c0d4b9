"""The networks that a relay connects, and copying bytes from one to the other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

from wgpy.config.services import Place
from wgpy.errors import ResolveError, WgpyError
from wgpy.net.admission import BACKLOG, Admission, Admitted, client_of
from wgpy.net.streams import KEEPALIVE, Server, Serving, Stream, attended, close, end, reason, reset, send, set_options

log: Final = logging.getLogger("wgpy.relay")

CONNECT_TIMEOUT: Final = 30.0  # seconds to look up a name and connect; less than clients usually wait
_CHUNK: Final = 1 << 18  # bytes per read
_STREAM_COST: Final = 3  # file descriptors: its own, and its target's, or two while a name is looked up
_MAX_QUEUED: Final = 1 << 18  # bytes of datagrams queued for a socket that cannot send yet

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
P = TypeVar("P", bound=asyncio.DatagramProtocol)


class Network(Protocol):
    """A network to listen and connect in, such as `RootlessTunnel` or `HostNetwork`."""

    def client_of(self, address: object) -> str:
        """The client, as Admission counts them, that an address belongs to."""

    async def getaddrinfo(self, host: str, port: int, *, type: int) -> list[Any]: ...

    async def open_connection(self, host: str, port: int, *, limit: int) -> Stream: ...

    async def start_server(
        self, client_connected_cb: Connected, host: str | None, port: int, *, limit: int, backlog: int
    ) -> Server: ...

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str | None, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
    ) -> tuple[asyncio.DatagramTransport, P]: ...


class HostNetwork:
    """The network of this process, with the system's resolver."""

    def client_of(self, address: object) -> str:
        return client_of(address)

    async def getaddrinfo(self, host: str, port: int, *, type: int) -> list[Any]:
        return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=type))

    async def open_connection(self, host: str, port: int, *, limit: int) -> Stream:
        return await asyncio.open_connection(host, port, limit=limit)

    async def start_server(
        self, client_connected_cb: Connected, host: str | None, port: int, *, limit: int, backlog: int
    ) -> Server:
        return await asyncio.start_server(client_connected_cb, host, port, limit=limit, backlog=backlog)

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str | None, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
    ) -> tuple[asyncio.DatagramTransport, P]:
        loop = asyncio.get_running_loop()
        own: Any = (local_addr[0] or "0.0.0.0", local_addr[1]) if local_addr else None
        return await loop.create_datagram_endpoint(protocol_factory, local_addr=own, remote_addr=remote_addr)


async def serve(network: Network, host: str | None, port: int, serving: Serving, admission: Admission) -> Server:
    """Listen. An error while serving one client is logged and ends only that client's connection."""

    async def kept_alive(stream: Stream, admitted: Admitted) -> None:
        set_options(stream[1], KEEPALIVE)
        await serving(stream, admitted)

    server = await network.start_server(
        attended(kept_alive, admission, _STREAM_COST, log, network.client_of),
        host,
        port,
        limit=_CHUNK,
        backlog=BACKLOG,
    )
    admission.reserve((BACKLOG + 1) * len(server.sockets))
    return server


async def connect(network: Network, host: str, port: int) -> Stream:
    """Connect within CONNECT_TIMEOUT. Raises OSError and WgpyError."""
    async with asyncio.timeout(CONNECT_TIMEOUT):
        try:
            stream = await network.open_connection(host, port, limit=_CHUNK)
        except ValueError as error:  # a name that cannot be encoded, such as a..b, or one with a NUL
            raise ResolveError(f"{host}: {error}") from error
    set_options(stream[1], KEEPALIVE)
    return stream


def failure(place: Place, error: BaseException) -> str:
    """The text for a failed connection: the place and the reason, without repeating the host's name."""
    return f"{place}: {reason(error).removeprefix(f'{place.host}: ')}"


async def join(one: Stream, other: Stream, admitted: Admitted) -> None:
    """Copy bytes both ways until both sides have ended. When one side ends, only that direction is closed.

    If one connection breaks, the other is reset. Both are closed on return.
    """
    copying = [
        asyncio.create_task(_copy(one[0], other[1], admitted)),
        asyncio.create_task(_copy(other[0], one[1], admitted)),
    ]
    try:
        await asyncio.gather(*copying)
        await asyncio.gather(close(one[1]), close(other[1]))
    except (OSError, WgpyError):
        for _, writer in (one, other):
            reset(writer)
    finally:
        for task in copying:
            task.cancel()
        for _, writer in (one, other):
            writer.transport.abort()


def send_datagram(transport: Any, data: bytes, address: Any = None) -> None:
    """Send a datagram; if the transport is closed or its queue is full, drop it, as UDP may."""
    if not transport.is_closing() and transport.get_write_buffer_size() < _MAX_QUEUED:
        transport.sendto(data, address)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, admitted: Admitted) -> None:
    while data := await reader.read(_CHUNK):
        admitted.touch()
        await send(writer, data)
    end(writer)


class _RateLimit(logging.Filter):
    """Allows ten log lines of each kind per minute, so that strangers cannot fill the disk with them."""

    LINES: Final = 10
    SECONDS: Final = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[object, tuple[float, int]] = {}  # start of the minute, lines since

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = record.msg, time.monotonic()
        began, lines = self._kinds.get(kind, (now, 0))
        if now >= began + self.SECONDS:
            if lines > self.LINES:
                record.msg, record.args = f"{record.getMessage()} (and {lines - self.LINES} more like it)", ()
            began, lines = now, 0
        self._kinds[kind] = began, lines + 1
        return lines < self.LINES


log.addFilter(_RateLimit())
