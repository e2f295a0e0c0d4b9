"""Port forwards like ssh's -L and -R: traffic to an address in one network is passed to an address in the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from wgpy.config.services import Place
from wgpy.errors import WgpyError
from wgpy.net.admission import ULIMIT, Admission, Admitted, descriptors
from wgpy.net.streams import Server, Stream, reason, reset
from wgpy.relay.networks import HostNetwork, Network, connect, failure, join, log, send_datagram, serve

IDLE_TIMEOUT: Final = 120.0  # seconds without a datagram after which a UDP flow ends (RFC 4787, REQ-5)
_FLOW_COST: Final = 2  # file descriptors: its socket, or two while a name is looked up
_MAX_WAITING: Final = 1 << 16  # bytes queued for a flow whose socket is being made


@asynccontextmanager
async def forwarded(network: Network, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """Forward a port of 127.0.0.1 to a host in the tunnel, for libraries that accept only an address.

    ::

        async with wgpy.forwarded(tunnel, "db.internal", 5432) as (host, port):
            connection = await asyncpg.connect(host=host, port=port, user="me", database="app")

    The tunnel's DNS looks the host up for each connection; a connection that cannot be made is reset. Until the block
    ends, every user of this machine can connect to the port. For TLS, tell the library the real host's name to verify.
    """
    admission = Admission(descriptors() // 4, f"{Place(host, port)}: {ULIMIT}")  # the program needs the rest
    listener = await forward_streams(HostNetwork(), Place("127.0.0.1", 0), network, Place(host, port), admission)
    try:
        yield listener.sockets[0].getsockname()
    finally:
        listener.close()


async def forward_streams(
    listening: Network, at: Place, connecting: Network, to: Place, admission: Admission
) -> Server:
    """Forward TCP. Port 0 picks a free port (see the server's sockets). Raises OSError if `at` cannot be bound."""

    async def serving(stream: Stream, admitted: Admitted) -> None:
        try:
            other = await connect(connecting, to.host, to.port)
        except (OSError, WgpyError) as error:
            log.warning("%s", failure(to, error))
            reset(stream[1])
            return
        await join(stream, other, admitted)

    return await serve(listening, at.host or None, at.port, serving, admission)


async def forward_datagrams(
    listening: Network,
    at: Place,
    connecting: Network,
    to: Place,
    admission: Admission,
    *,
    idle: float = IDLE_TIMEOUT,
) -> asyncio.DatagramTransport:
    """Forward UDP. Each sender gets a socket of its own in the other network, and the replies to it.

    The socket is closed after `idle` seconds without a datagram. Raises OSError if `at` cannot be bound.
    """

    async def open_flow(flow: _Flow) -> None:
        await connecting.create_datagram_endpoint(lambda: flow, remote_addr=(to.host, to.port))

    transport, _ = await listening.create_datagram_endpoint(
        lambda: _Listener(open_flow, admission, listening.client_of, idle), local_addr=(at.host or None, at.port)
    )
    return transport


_OpenFlow = Callable[["_Flow"], Awaitable[None]]


class _Listener(asyncio.DatagramProtocol):
    def __init__(
        self, open_flow: _OpenFlow, admission: Admission, client_of: Callable[[object], str], idle: float
    ) -> None:
        self._open_flow = open_flow
        self._admission = admission
        self._client_of = client_of
        self._idle = idle
        self._flows: dict[Any, _Flow] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        flow = self._flows.get(sender)
        if flow is None:
            flow = self._new_flow(sender)
        else:
            flow.touch()
        flow.send(data)

    def _new_flow(self, sender: Any) -> _Flow:
        def forget(_: object = None) -> None:
            """Also called to make room for others; the sender's next datagram then starts a new flow."""
            flow.close()
            flow.admitted.release()
            if self._flows.get(sender) is flow:
                del self._flows[sender]

        flow = _Flow(lambda answer: send_datagram(self.transport, answer, sender))
        flow.admitted = self._admission.admit(self._client_of(sender), _FLOW_COST, forget)
        flow.keeper = asyncio.create_task(self._keep(flow))
        flow.keeper.add_done_callback(forget)
        self._flows[sender] = flow
        return flow

    async def _keep(self, flow: _Flow) -> None:
        """Open the flow's socket, and return when the flow has been idle for too long."""
        loop = asyncio.get_running_loop()
        try:
            await self._open_flow(flow)
            while (left := flow.last + self._idle - loop.time()) > 0:  # noqa: ASYNC110 (each datagram moves the deadline)
                await asyncio.sleep(left)
        except (OSError, WgpyError) as error:
            log.warning("a datagram was not forwarded: %s", reason(error))

    def connection_lost(self, exc: Exception | None) -> None:
        for flow in list(self._flows.values()):
            flow.close()


class _Flow(asyncio.DatagramProtocol):
    """One sender's socket in the other network."""

    admitted: Admitted
    keeper: asyncio.Task[None]  # a reference, or the task might be garbage-collected

    def __init__(self, answer: Callable[[bytes], None]) -> None:
        self._answer = answer
        self._transport: Any = None
        self._waiting: list[bytes] = []
        self._size = 0  # bytes in `_waiting`
        self.last = asyncio.get_running_loop().time()

    def touch(self) -> None:
        self.last = asyncio.get_running_loop().time()
        self.admitted.touch()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        for data in self._waiting:
            send_datagram(self._transport, data)
        self._waiting.clear()

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            send_datagram(self._transport, data)
        elif self._size + len(data) <= _MAX_WAITING:
            self._waiting.append(data)
            self._size += len(data)

    def datagram_received(self, data: bytes, sender: Any) -> None:
        self.touch()
        self._answer(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        self.keeper.cancel()
