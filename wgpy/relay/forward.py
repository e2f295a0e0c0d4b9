"""Forwards as ssh's -L and -R: what comes to an address in one network goes to an address in the other."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from wgpy.config.services import Place
from wgpy.errors import WgpyError
from wgpy.relay.networks import HostNetwork, Network, connect, join, log, reason, reset, serve

IDLE_TIMEOUT: Final = 120.0  # seconds a UDP flow is kept without a datagram (RFC 4787, REQ-5)
MAX_FLOWS: Final = 1024  # of one forward; the one idle longest makes room
_MAX_WAITING: Final = 64  # datagrams of a flow whose socket is being made


@asynccontextmanager
async def forwarded(network: Network, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """Have a port of 127.0.0.1 lead to a host of the tunnel, for libraries that take nothing but an address.

    ::

        async with wgpy.forwarded(tunnel, "db.internal", 5432) as (host, port):
            connection = await asyncpg.connect(host=host, port=port, user="me", database="app")

    The host is looked up for each connection, by the tunnel's DNS; a connection that cannot be made is reset. Until the
    end of the block, every user of this machine can connect there, too. TLS goes through, by the name of the real host.
    """
    listener = await forward_streams(HostNetwork(), Place("127.0.0.1", 0), network, Place(host, port))
    try:
        yield listener.sockets[0].getsockname()
    finally:
        listener.close()


async def forward_streams(listening: Network, at: Place, connecting: Network, to: Place) -> asyncio.Server:
    """Forward TCP. Raises OSError if `at` cannot be bound; port 0 is any, which the server's sockets tell."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other = await connect(connecting, to.host, to.port)
        except (OSError, WgpyError) as error:
            log.warning("%s: %s", to, reason(error))
            reset(writer)
            return
        await join((reader, writer), other)

    return await serve(listening, at.host or None, at.port, connected)


async def forward_datagrams(
    listening: Network, at: Place, connecting: Network, to: Place, *, idle: float = IDLE_TIMEOUT
) -> asyncio.DatagramTransport:
    """Forward UDP: each sender has a socket of its own in the other network, and gets its answers."""

    async def open_flow(flow: _Flow) -> None:
        await connecting.create_datagram_endpoint(lambda: flow, remote_addr=(to.host, to.port))

    transport, _ = await listening.create_datagram_endpoint(
        lambda: _Listener(open_flow, idle), local_addr=(at.host or None, at.port)
    )
    return transport


_OpenFlow = Callable[["_Flow"], Awaitable[None]]


class _Listener(asyncio.DatagramProtocol):
    def __init__(self, open_flow: _OpenFlow, idle: float) -> None:
        self._open_flow = open_flow
        self._idle = idle
        self._flows: OrderedDict[Any, _Flow] = OrderedDict()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        flow = self._flows.get(sender)
        if flow is None:
            if len(self._flows) >= MAX_FLOWS:
                self._flows.popitem(last=False)[1].close()
            flow = self._flows[sender] = _Flow(lambda answer: self.transport.sendto(answer, sender))
            flow.lasting = asyncio.create_task(self._open(sender, flow))
        self._flows.move_to_end(sender)
        flow.send(data)

    async def _open(self, sender: Any, flow: _Flow) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._open_flow(flow)
            while not flow.closed.is_set() and (left := flow.last + self._idle - loop.time()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(flow.closed.wait(), left)
        except (OSError, WgpyError) as error:
            log.warning("a datagram was not forwarded: %s", error)
        finally:
            flow.close()
            if self._flows.get(sender) is flow:
                del self._flows[sender]

    def connection_lost(self, exc: Exception | None) -> None:
        for flow in list(self._flows.values()):
            flow.close()


class _Flow(asyncio.DatagramProtocol):
    """One sender's socket in the other network."""

    lasting: asyncio.Task[None]  # held here, or it might be collected

    def __init__(self, answer: Callable[[bytes], None]) -> None:
        self._answer = answer
        self._transport: Any = None
        self._waiting: list[bytes] = []
        self.closed = asyncio.Event()
        self.touch()

    def touch(self) -> None:
        self.last = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        for data in self._waiting:
            self._transport.sendto(data)
        self._waiting.clear()

    def send(self, data: bytes) -> None:
        self.touch()
        if self._transport is not None:
            self._transport.sendto(data)
        elif len(self._waiting) < _MAX_WAITING:
            self._waiting.append(data)

    def datagram_received(self, data: bytes, sender: Any) -> None:
        self.touch()
        self._answer(data)

    def close(self) -> None:
        self.closed.set()
        if self._transport is not None:
            self._transport.close()
