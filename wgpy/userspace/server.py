"""A listener of the stack as asyncio's server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from socket import SOCK_STREAM
from typing import Any, Self
from weakref import WeakSet

from wgpy.stack.news import Listener
from wgpy.userspace.sockets import SocketView
from wgpy.userspace.stream import StreamTransport
from wgpy.userspace.tls import wrap
from wgpy.userspace.tun import StackTun


class StackServer(asyncio.AbstractServer):
    """As asyncio.Server: `close` lets nobody in any more, and connections that are open go on."""

    def __init__(
        self,
        tun: StackTun,
        listener: Listener,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        own: tuple[Any, ...],
        size: int | None,
        tls: tuple[ssl.SSLContext, float | None, float | None] | None,
        transports: WeakSet[Any],
    ) -> None:
        """`own` is where it listens; `size` the length of addresses that may call, None for both.

        `tls` is a context with the seconds for handshake and shutdown; `transports` gets each connection.
        """
        self._loop = asyncio.get_running_loop()
        self._tun, self._listener, self._factory = tun, listener, protocol_factory
        self._socket = SocketView(SOCK_STREAM, own)
        self._size, self._tls, self._transports = size, tls, transports
        self._closed = self._loop.create_future()
        tun.handlers[listener] = self._look

    def _look(self) -> None:
        """Connections have come."""
        while (connection := self._tun.host.accept(self._listener)) is not None:
            if self._size not in (None, len(connection.names.remote)):
                connection.abort()
                self._tun.wake(connection)
                continue
            try:
                protocol = self._factory()
                if self._tls is not None:
                    context, handshake, shutdown = self._tls
                    protocol, waiter = wrap(
                        self._loop,
                        protocol,
                        context,
                        server_side=True,
                        server_hostname=None,
                        handshake_timeout=handshake,
                        shutdown_timeout=shutdown,
                    )
                    waiter.add_done_callback(_seen)
                transport = StreamTransport(self._loop, self._tun, connection, protocol)
                self._transports.add(transport)
                transport.begin()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                connection.abort()
                self._tun.wake(connection)
                context_ = {"message": "a connection was accepted and could not be served", "exception": error}
                self._loop.call_exception_handler(context_)

    @property
    def sockets(self) -> tuple[SocketView, ...]:
        return () if self._closed.done() else (self._socket,)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def is_serving(self) -> bool:
        return not self._closed.done()

    def close(self) -> None:
        if not self._closed.done():
            self._closed.set_result(None)
            if self._tun.handlers.pop(self._listener, None) is not None:
                self._tun.host.close_listener(self._listener)
                self._tun.schedule()

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    async def start_serving(self) -> None:
        """It serves from the beginning."""

    async def serve_forever(self) -> None:
        try:
            await asyncio.shield(self._closed)
        except asyncio.CancelledError:
            self.close()
            raise
        raise asyncio.CancelledError  # as asyncio's own, when it is closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self.close()


def _seen(waiter: asyncio.Future[None]) -> None:
    """A handshake that failed has ended its connection; nobody else need hear of it."""
    if not waiter.cancelled():
        waiter.exception()
