"""The two networks that a relay stands between, and bytes from one to the other."""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final, Protocol, TypeVar

from wgpy.errors import WgpyError

log = logging.getLogger("wgpy.relay")

CONNECT_TIMEOUT: Final = 30.0  # seconds for a name and a connection; less than what clients wait for an answer
_CHUNK: Final = 1 << 18  # bytes read at once

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
P = TypeVar("P", bound=asyncio.DatagramProtocol)


class Network(Protocol):
    """Where one may listen and connect: `NamespaceTunnel` and `HostNetwork` are two."""

    async def getaddrinfo(self, host: str, port: int, *, type: int) -> list[Any]: ...

    async def open_connection(self, host: str, port: int, *, limit: int) -> Stream: ...

    async def start_server(
        self, client_connected_cb: Connected, host: str | None, port: int, *, limit: int
    ) -> asyncio.Server: ...

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str | None, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
    ) -> tuple[asyncio.DatagramTransport, P]: ...


class HostNetwork:
    """The network of this process, by its own resolver."""

    async def getaddrinfo(self, host: str, port: int, *, type: int) -> list[Any]:
        return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=type))

    async def open_connection(self, host: str, port: int, *, limit: int) -> Stream:
        return await asyncio.open_connection(host, port, limit=limit)

    async def start_server(
        self, client_connected_cb: Connected, host: str | None, port: int, *, limit: int
    ) -> asyncio.Server:
        return await asyncio.start_server(client_connected_cb, host, port, limit=limit)

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str | None, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
    ) -> tuple[asyncio.DatagramTransport, P]:
        loop = asyncio.get_running_loop()
        own: Any = (local_addr[0] or "0.0.0.0", local_addr[1]) if local_addr else None
        return await loop.create_datagram_endpoint(protocol_factory, local_addr=own, remote_addr=remote_addr)


async def serve(network: Network, host: str | None, port: int, connected: Connected) -> asyncio.Server:
    """Listen; what goes wrong with one client ends that client's connection, and is logged."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await connected(reader, writer)
        except (WgpyError, OSError, asyncio.IncompleteReadError) as error:
            log.info("a connection ended: %s", error or type(error).__name__)
        except asyncio.CancelledError:
            pass  # the loop ends; the streams of Python 3.11 print a traceback for a task that says so
        finally:
            writer.close()

    return await network.start_server(guarded, host, port, limit=_CHUNK)


async def connect(network: Network, host: str, port: int) -> Stream:
    """A connection within CONNECT_TIMEOUT. Raises OSError and WgpyError."""
    async with asyncio.timeout(CONNECT_TIMEOUT):
        return await network.open_connection(host, port, limit=_CHUNK)


def reason(error: BaseException) -> str:
    """What kept a connection from being made, in the system's words where it has any."""
    number = error.errno if isinstance(error, OSError) and not isinstance(error, WgpyError) else None
    if number and number > 0:
        return os.strerror(number)  # asyncio's own words repeat the address
    return getattr(error, "strerror", None) or str(error) or "no answer in time"


async def join(one: Stream, other: Stream) -> None:
    """Pass bytes both ways until both sides have ended; the end of one direction is passed on alone.

    A connection that breaks breaks the other. Both are closed in the end.
    """
    copying = [asyncio.create_task(_copy(one[0], other[1])), asyncio.create_task(_copy(other[0], one[1]))]
    try:
        await asyncio.gather(*copying)
    except (OSError, WgpyError):
        for _, writer in (one, other):
            reset(writer)
    finally:
        for task in copying:
            task.cancel()
        for _, writer in (one, other):
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection so that the other end learns of it: by RST, not FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:  # uvloop has forgotten it once the connection is closed
        with suppress(OSError):
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):  # the other direction may have closed it
        writer.write_eof()
