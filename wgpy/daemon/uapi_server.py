"""The server of the userspace API socket, /var/run/wireguard/NAME.sock, for `wg` and `wgpy` (wireguard.com/xplatform).

A connection carries any number of requests, each `get=1` or `set=1` with its lines, ended by an empty line; `apply=1`,
with a whole wg-quick file, is wgpy's own. `wg` first connects and closes again without sending anything, to see whether
a daemon is there; that is not an error.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from wgpy.config.uapi import UapiError, format_applied, format_status, parse_apply, parse_set
from wgpy.daemon.files import own_directory
from wgpy.daemon.interface import Interface
from wgpy.daemon.uapi_client import answers, socket_path
from wgpy.daemon.watch import FileWatch
from wgpy.errors import ConfigError, ControlError, SocketError
from wgpy.net.admission import Admission, Admitted
from wgpy.net.streams import Stream, attended, send

log: Final = logging.getLogger("wgpy")

MAX_LINE: Final = 1 << 16
MAX_REQUEST: Final = 1 << 28  # bytes of all lines together, the same limit as for a file
MAX_CONNECTIONS: Final = 64  # for one more, an unused or the longest idle one is closed


class UapiServer:
    """Serves one interface. Only root may connect: the socket's mode is 0700, as wireguard-go's.

    `listener` is a file descriptor, inherited from our parent, that already listens on the socket.
    """

    def __init__(self, interface: Interface, *, listener: int | None = None) -> None:
        self._interface = interface
        self._path = socket_path(interface.name)
        self.apply: Callable[[str], Awaitable[tuple[list[str], str]]] | None = None  # set once the interface is up
        self._listener = listener
        self._own: int | None = None  # the socket file's inode
        self._server: asyncio.Server | None = None
        self._admission = Admission(
            MAX_CONNECTIONS, f"({interface.name}) {self._path} has {MAX_CONNECTIONS} connections"
        )
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen, replacing a stale socket. Raises ControlError if a daemon answers on it, or it cannot be created."""
        path = self._path
        connected = attended(self._serve, self._admission, 1, log)
        try:
            if self._listener is not None:
                inherited = socket.socket(fileno=self._listener)
                self._server = await asyncio.start_unix_server(connected, sock=inherited, limit=MAX_LINE)
                self._own = _inode(path)
                return
            with own_directory(path.parent, shared=True):
                pass  # checks that no other user can replace our socket, except a group that root allowed to
            if path.exists() and answers(path):
                raise ControlError(f"{self._interface.name} is already served by another daemon ({path} answers)")
            path.unlink(missing_ok=True)
            old_mask = os.umask(0o077)
            try:
                self._server = await asyncio.start_unix_server(connected, path, limit=MAX_LINE)
            finally:
                os.umask(old_mask)
            self._own = _inode(path)
        except ControlError:
            raise
        except OSError as error:
            raise ControlError(f"cannot create {path}: {error.strerror}") from error

    async def wait_removed(self) -> None:
        """Wait until the socket file is deleted or replaced, which is one way to end the daemon."""
        if self._own is None:  # an inherited socket whose file we cannot see
            await asyncio.get_running_loop().create_future()
        with FileWatch(self._path) as watch:
            while _inode(self._path) == self._own:
                await watch.changed()

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            for writer in self._connections:
                writer.close()
            if self._own is not None and _inode(self._path) == self._own:
                self._path.unlink(missing_ok=True)

    async def _serve(self, stream: Stream, admitted: Admitted) -> None:
        reader, writer = stream
        self._connections.add(writer)
        try:
            while (request := await _read_request(reader))[0]:
                admitted.touch()
                await send(writer, (await self._answer(*request)).encode())
        finally:
            self._connections.discard(writer)

    async def _answer(self, request: list[str], code: int) -> str:
        match request[0]:
            case "get=1":
                # wg understands the errno of a get only if positive, and that of a set only if negative.
                code = code or (errno.EINVAL if len(request) > 1 else 0)
                return f"errno={code}\n\n" if code else format_status(await self._interface.status())
            case _ if code:
                return f"errno={-code}\n\n"
            case "set=1":
                return f"errno={-await self._set(request[1:])}\n\n"
            case "apply=1":
                return await self._apply(request[1:])
        return f"errno={-errno.EPROTO}\n\n"

    async def _apply(self, lines: list[str]) -> str:
        if self.apply is None:
            return format_applied([], "the interface is still being brought up")
        try:
            return format_applied(*await self.apply(parse_apply(lines)))
        except UapiError as error:
            return f"errno={-error.errno}\n\n"

    async def _set(self, lines: list[str]) -> int:
        try:
            change = await asyncio.to_thread(parse_set, lines, socket.if_nametoindex)  # 20 µs for each peer
            await self._interface.configure(change)
        except UapiError as error:
            return error.errno
        except ConfigError:
            return errno.EINVAL
        except SocketError as error:
            log.warning("(%s) %s", self._interface.name, error)
            return errno.EADDRINUSE
        return 0


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


async def _read_request(reader: asyncio.StreamReader) -> tuple[list[str], int]:
    """Read the lines of a request up to the empty one. Returns them and an errno, 0 if they are valid.

    There are no lines if the connection has ended. The errno is EIO for a line longer than MAX_LINE, as wireguard-go's,
    or more than MAX_REQUEST bytes, and EPROTO if the connection ends in the middle of the request.
    """
    lines: list[str] = []
    code, cut, size = 0, "", 0
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            await reader.readexactly(error.consumed)
            code, cut = errno.EIO, "(too long)"
            continue
        except asyncio.IncompleteReadError as error:
            return lines or ["(cut off)"] * bool(error.partial or cut), code or errno.EPROTO
        text = cut or line.decode("ascii", errors="replace").rstrip("\n")
        size += len(text)
        if size > MAX_REQUEST:
            code = errno.EIO
            del lines[1:]
        if text:
            lines.append(text)
        elif lines:
            return lines, code
        cut = ""
