"""Connections of listeners: each is admitted, served, and closed, and what goes wrong with one is its own affair."""

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
    EADDRINUSE: "; choose another port, or stop the program that listens there (`ss -ltnp` names it)",
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
    """What a listener is to call for each connection, which then counts as `cost` descriptors until it is served.

    `client_of` names the client at a socket's address. An error of the connection ends it, and is logged.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None

        def make_room() -> None:
            reset(writer)
            task.cancel()  # it may be waiting for something else than this connection

        admitted = admission.admit(client_of(writer.get_extra_info("peername")), cost, make_room)
        try:
            await serving((reader, writer), admitted)
            await close(writer)  # what is still to be sent counts, too
        except (WgpyError, OSError, asyncio.IncompleteReadError) as error:
            log.info("a connection ended: %s", error or type(error).__name__)
        except asyncio.CancelledError:
            pass  # it made room, or the loop ends; the streams of Python 3.11 print a traceback for a task that says so
        finally:
            writer.transport.abort()
            admitted.release()

    return connected


def set_options(writer: asyncio.StreamWriter, options: Iterable[tuple[int, int, int | bytes]]) -> None:
    """Set options of a connection's socket, if it is one of the kernel's and not closed yet."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError, ValueError):  # uvloop's has the number -1 once it is closed
            for option in options:
                sock.setsockopt(*option)


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection so that the other end learns of it: by RST, not FIN."""
    set_options(writer, ((SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0)),))
    writer.transport.abort()


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, and wait while the other end does not keep up. Raises ConnectionError once the connection is closed.

    A transport that is closed takes a write in silence, or with uvloop raises RuntimeError.
    """
    if writer.is_closing():
        raise ConnectionResetError("the connection was closed")
    writer.write(data)
    await writer.drain()


async def close(writer: asyncio.StreamWriter) -> None:
    """Close, and wait until everything is sent, or cannot be."""
    writer.close()
    with suppress(OSError):
        await asyncio.shield(writer.wait_closed())  # cancelled itself, it would be so for all who wait


def end(writer: asyncio.StreamWriter) -> None:
    """Say that nothing more comes, where that can still be said."""
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
