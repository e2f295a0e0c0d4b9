"""Descriptors for libraries that take nothing else: one end of a socketpair, the stack's connection at the other."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from wgpy.errors import TunnelClosedError
from wgpy.system.forks import abandon_in_child

_MAX_DATAGRAM: Final = 1 << 16
_ACCEPT_ELSEWHERE: Final = (
    "connections through wgpy's own stack come to the process that opened the tunnel, not to one forked from it: "
    'accept there and fork afterwards, use network="namespace", or have `wgpy forward -R` bring them to a port of '
    "this machine"
)


class _OurEnd(socket.socket):
    """The tunnel's end of a socketpair. A forked child closes its copy, which would keep the connection from ending."""

    def abandon(self) -> None:
        if (fd := self.detach()) >= 0:
            os.close(fd)


def _pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """The tunnel's end of a socketpair and its user's, both non-blocking."""
    end, theirs = _datagram_pair() if kind == socket.SOCK_DGRAM else socket.socketpair(type=kind)
    ours = _OurEnd(end.family, end.type, end.proto, fileno=end.detach())
    abandon_in_child(ours)
    for sock in (ours, theirs):
        sock.setblocking(False)
    return ours, theirs


def _datagram_pair() -> tuple[socket.socket, socket.socket]:
    """A socketpair of datagrams, over the loopback interface where there are no unix sockets (Windows)."""
    if hasattr(socket, "AF_UNIX"):
        return socket.socketpair(type=socket.SOCK_DGRAM)
    pair = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
    try:
        for sock in pair:
            sock.bind(("127.0.0.1", 0))
        for sock, other in (pair, pair[::-1]):
            sock.connect(other.getsockname())
    except BaseException:
        for sock in pair:
            sock.close()
        raise
    return pair[0], pair[1]


class Bridge(asyncio.Protocol):
    """One of two protocols that pass on to each other's transport what theirs brings, ends and pauses included."""

    def __init__(self, other: Bridge | None = None) -> None:
        self.transport: Any = None
        self.other: Bridge = other or Bridge(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        if not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        other = self.other.transport
        if other is not None and not other.is_closing():
            other.abort() if exc else other.close()


async def paired(loop: asyncio.AbstractEventLoop, protocol: asyncio.BaseProtocol) -> socket.socket:
    """A socket, non-blocking, whose other end is the protocol's transport."""
    ours, theirs = _pair(socket.SOCK_STREAM)
    try:
        if hasattr(socket, "AF_UNIX") and ours.family == socket.AF_UNIX:
            await loop.create_unix_connection(lambda: protocol, sock=ours)
        else:
            await loop.create_connection(lambda: protocol, sock=ours)
    except BaseException:
        ours.close()
        theirs.close()
        raise
    return theirs


class DatagramBridge(asyncio.DatagramProtocol):
    """Datagrams from a transport of the stack to a socket, and back; what finds no room is lost."""

    theirs: socket.socket

    def __init__(self) -> None:
        self._ours, self.theirs = _pair(socket.SOCK_DGRAM)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        """By sock_recv, which every loop has: Windows's has no add_reader."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._transport.sendto(await loop.sock_recv(self._ours, _MAX_DATAGRAM))
                await asyncio.sleep(0)  # sock_recv does not wait while there is something to receive
        except OSError:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: object) -> None:
        try:
            self._ours.send(data)
        except BlockingIOError:
            pass
        except OSError:  # its owner has closed the other end
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reading.cancel()
        self._reading.add_done_callback(lambda _: self._ours.close())


class ListeningSocket(socket.socket):
    """A socket for `accept`: readable while connections wait, which come with the addresses of who calls.

    The connections wait in the process of the tunnel, so a forked child cannot accept any.
    """

    def __init__(self, theirs: socket.socket) -> None:
        super().__init__(theirs.family, theirs.type, theirs.proto, fileno=theirs.detach())
        self.own: Any = None  # where it listens
        self._waiting: deque[tuple[socket.socket, tuple[Any, ...]]] = deque()
        self._is_forked = False
        abandon_in_child(self)

    def arrive(self, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        """A connection has come; the caller then makes this readable."""
        self._waiting.append((sock, peer))

    def accept(self) -> tuple[socket.socket, Any]:
        """As any socket's. Raises TunnelClosedError once the tunnel is closed, and in a fork's child."""
        if self._is_forked:
            raise TunnelClosedError(_ACCEPT_ELSEWHERE)
        if not self.recv(1):
            raise TunnelClosedError("the tunnel was closed")
        sock, peer = self._waiting.popleft()
        sock.setblocking(True)
        return sock, peer

    def getsockname(self) -> Any:
        return self.own

    def abandon(self) -> None:
        """In a fork's child: accept nothing, and hold no connection open that the parent accepts and closes."""
        self._is_forked = True
        self._forget_waiting()

    def close(self) -> None:
        super().close()
        self._forget_waiting()

    def _forget_waiting(self) -> None:
        for sock, _ in self._waiting:
            with suppress(OSError):
                sock.close()
        self._waiting.clear()


class Waker(asyncio.Protocol):
    """The other end of a ListeningSocket: `on_end` is called when its owner closes it."""

    def __init__(self) -> None:
        self.on_end: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_end()


class Caller(Bridge):
    """A connection that came for a ListeningSocket."""

    def __init__(self, listening: ListeningSocket, waker: Waker) -> None:
        super().__init__()
        self._listening, self._waker = listening, waker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()  # until there is somewhere to pass it on to
        self._pairing = asyncio.create_task(self._pair())

    async def _pair(self) -> None:
        try:
            sock = await paired(asyncio.get_running_loop(), self.other)
        except OSError:  # no descriptors
            self.transport.abort()
            return
        self._listening.arrive(sock, self.transport.get_extra_info("peername"))
        self._waker.transport.write(b"\0")
        self.transport.resume_reading()
