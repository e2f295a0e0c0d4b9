"""Connections of listeners: each is admitted, served and closed, and an error in one does not affect the others."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL
from socket import EAI_NONAME, IPPROTO_TCP, SO_KEEPALIVE, SO_LINGER, SOL_SOCKET
from typing import Any, Final, Protocol

from wgpy.errors import WgpyError
from wgpy.net.admission import Admission, Admitted, client_of

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_REMEDIES: Final = {
    EADDRNOTAVAIL: "; give an address of this host, such as 127.0.0.1",
    EADDRINUSE: "; choose another port, or stop the program that listens there (`ss -lnp` names it)",
    EACCES: "; choose a port above 1023, or run as root",
    EAI_NONAME: "; give an address of this host, such as 127.0.0.1",
}
_TCP: Final = (  # Linux's numbers where the system's module has no such name
    getattr(socket, "TCP_KEEPIDLE", 4),
    getattr(socket, "TCP_KEEPINTVL", 5),
    getattr(socket, "TCP_KEEPCNT", 6),
    getattr(socket, "TCP_USER_TIMEOUT", 18),
)
KEEPALIVE: Final = (  # a connection whose other end has vanished is closed after three minutes
    (SOL_SOCKET, SO_KEEPALIVE, 1),
    *((IPPROTO_TCP, option, value) for option, value in zip(_TCP, (120, 15, 4, 180_000), strict=True)),
)
Serving = Callable[[Stream, Admitted], Awaitable[None]]


class Server(Protocol):
    """What `start_server` and `create_server` return: asyncio.Server's methods, whichever loop or stack it is of."""

    @property
    def sockets(self) -> Sequence[Any]:
        """The sockets it listens on: of each, `getsockname()` tells where."""

    def close(self) -> None: ...
    def is_serving(self) -> bool: ...
    async def wait_closed(self) -> None: ...
    async def start_serving(self) -> None: ...
    async def serve_forever(self) -> None: ...
    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, *exc: Any) -> None: ...


def attended(
    serving: Serving,
    admission: Admission,
    cost: int,
    log: logging.Logger,
    client_of: Callable[[object], str] = client_of,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """The callback of a listener, which serves each connection and counts it as `cost` descriptors meanwhile.

    `client_of` names the client at a socket's address. An error ends the connection and is logged.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None

        def make_room() -> None:
            reset(writer)
            task.cancel()  # it may be waiting for something other than this connection

        admitted = admission.admit(client_of(writer.get_extra_info("peername")), cost, make_room)
        try:
            await serving((reader, writer), admitted)
            await close(writer)  # it counts until everything is sent
        except (WgpyError, OSError, asyncio.IncompleteReadError) as error:
            log.info("a connection ended: %s", error or type(error).__name__)
        except asyncio.CancelledError:
            pass  # it was closed for another, or the loop ends; Python 3.11's streams would print a traceback
        finally:
            writer.transport.abort()
            admitted.release()

    return connected


def set_options(writer: asyncio.StreamWriter, options: Iterable[tuple[int, int, int | bytes]]) -> None:
    """Set options of a connection's socket, if it has a kernel socket that is not closed yet."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError, ValueError):  # uvloop's has the descriptor -1 once it is closed
            for option in options:
                sock.setsockopt(*option)


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection by RST, not FIN, so that the other end sees an error."""
    set_options(writer, ((SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0)),))
    writer.transport.abort()


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, and wait if the other end is slower. Raises ConnectionError once the connection is closed.

    Without this check, a closed transport ignores the write, or raises RuntimeError with uvloop.
    """
    if writer.is_closing():
        raise ConnectionResetError("the connection was closed")
    writer.write(data)
    await writer.drain()


async def close(writer: asyncio.StreamWriter) -> None:
    """Close, and wait until everything is sent or cannot be sent."""
    writer.close()
    await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Wait until the connection is closed, however it ended."""
    await asyncio.shield(_closed(writer))  # cancelling it would cancel it for all who wait


async def _closed(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # in here, because Python 3.14 logs what is raised after `shield` was cancelled
        await writer.wait_closed()


def end(writer: asyncio.StreamWriter) -> None:
    """Send FIN, if the connection is still open."""
    if not writer.is_closing():
        with suppress(OSError):
            writer.write_eof()


def reason(error: BaseException) -> str:
    """Why a connection could not be made, in the system's words if there are any."""
    number = error.errno if isinstance(error, OSError) and not isinstance(error, WgpyError) else None
    if number and number > 0:
        return os.strerror(number)  # asyncio's message would repeat the address
    return getattr(error, "strerror", None) or str(error) or "timed out"


def listening_reason(error: OSError) -> str:
    """Why a listener could not be made, and what to do about it."""
    number = error.errno or EADDRNOTAVAIL  # of which asyncio tells, since Python 3.12, without its number
    return f"{os.strerror(number) if number > 0 else error.strerror}{_REMEDIES.get(number, '')}"
