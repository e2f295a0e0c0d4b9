"""TLS over transports that no event loop made: uvloop's own start_tls refuses them."""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import Any


def wrap(
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    server_hostname: str | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
    is_new: bool = True,
) -> tuple[Any, asyncio.Future[None]]:
    """asyncio's protocol between a transport and `protocol`, and what is done when its handshake is.

    `is_new`: `protocol` is told of the connection then; not if it had it before. Times are seconds.
    """
    waiter: asyncio.Future[None] = loop.create_future()
    made = SSLProtocol(
        loop,
        protocol,
        context,
        waiter,
        server_side,
        server_hostname,
        call_connection_made=is_new,
        ssl_handshake_timeout=handshake_timeout,  # type: ignore[arg-type]  # typeshed knows whole seconds
        ssl_shutdown_timeout=shutdown_timeout,
    )
    return made, waiter


class TlsLoop:
    """An event loop for streams, whose start_tls takes transports of the stack: the rest is the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.create_future: Callable[[], asyncio.Future[Any]] = loop.create_future  # for each wait of a stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def start_tls(
        self,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport:
        """As the event loop's."""
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
        made, waiter = wrap(
            self._loop,
            protocol,
            sslcontext,
            server_side=server_side,
            server_hostname=server_hostname,
            handshake_timeout=ssl_handshake_timeout,
            shutdown_timeout=ssl_shutdown_timeout,
            is_new=False,
        )
        transport.pause_reading()  # nothing may come before the new protocol knows its transport
        transport.set_protocol(made)
        made.connection_made(transport)
        transport.resume_reading()
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        wrapped: asyncio.Transport = made._app_transport
        return wrapped
