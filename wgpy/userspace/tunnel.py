"""Stack: a tunnel whose network is a TCP/IP stack of our own, in this process: no namespace, no TUN, no privileges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from errno import ENETUNREACH
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM
from socket import socket as Socket
from typing import Any, ClassVar, Final, NoReturn, TypeVar, cast
from weakref import WeakSet

from wgpy.config.values import ALL_OFFLOADS, InterfaceConfig, Offloads
from wgpy.datapath import MachineUdp, UdpHost, machine_clock
from wgpy.device.effects import Event
from wgpy.errors import NamespaceError, TunnelClosedError
from wgpy.net.streams import KEEPALIVE, Server
from wgpy.rootless.names import AddressInfo
from wgpy.rootless.tunnel import Context, NetworkKind, RootlessTunnel, SocketFactory
from wgpy.stack.failures import failure
from wgpy.stack.news import News
from wgpy.stack.tcp.connection import Connection
from wgpy.stack.tcp.state import OPENING
from wgpy.userspace.bridge import Bridge, Caller, DatagramBridge, ListeningSocket, Waker, paired
from wgpy.userspace.datagram import DatagramTransport
from wgpy.userspace.server import StackServer
from wgpy.userspace.stream import StreamTransport
from wgpy.userspace.tls import TlsLoop, wrap
from wgpy.userspace.tun import StackTun

P = TypeVar("P", bound=asyncio.BaseProtocol)
D = TypeVar("D", bound=asyncio.DatagramProtocol)

_ICMP: Final = (1, 58)


class Stack(RootlessTunnel):
    """A tunnel with a TCP/IP stack of wgpy's own: of the system it asks for nothing but UDP sockets.

    ::

        async with wgpy.Stack(config, udp=network.host("192.0.2.1"), clock=loop.time) as tunnel:
            reader, writer = await tunnel.open_connection("10.0.0.2", 8080)

    `wgpy.connect` makes one where no network namespace can be made, or if asked to (`network="stack"`). With a
    `MemoryNetwork` and a virtual loop's time, programs speak TCP through tunnels in unit tests, and hours pass in no
    time. Loopback addresses are the tunnel's own.
    """

    network: ClassVar[NetworkKind] = "stack"
    """wgpy's own TCP/IP, in this process."""

    def __init__(
        self,
        config: InterfaceConfig,
        *,
        udp: UdpHost = MachineUdp,
        clock: Callable[[], float] = machine_clock,
        on_event: Callable[[Event], None] | None = None,
        keylog: Callable[[str, bytes], None] | None = None,
        offloads: Offloads = ALL_OFFLOADS,
    ) -> None:
        """The parameters are Tunnel's; the addresses and the MTU are the configuration's."""
        self._stack = StackTun(clock)
        super().__init__(
            config, tun=self._stack, udp=udp, clock=clock, on_event=on_event, keylog=keylog, offloads=offloads
        )
        self._transports: WeakSet[StreamTransport | DatagramTransport] = WeakSet()  # type: ignore[assignment]
        self._opening: set[asyncio.Future[None]] = set()
        self._wakers: WeakSet[Waker] = WeakSet()
        self._pings: dict[tuple[bytes, bytes], asyncio.Future[None]] = {}  # by address, identifier and number
        self._stack.on_echo = self._echoed
        self._tls_loop: TlsLoop | None = None  # of all streams

    async def _bring_up(self) -> None:
        self._stack.begin([address.ip.packed for address in self.config.addresses])
        self._stack.schedule()

    def _end_connections(self) -> None:
        for server in list(self._servers):
            server.close()
        for transport in list(self._transports):
            transport.break_off()
        for waker in list(self._wakers):
            waker.transport.close()
        for waiting in (*self._opening, *self._pings.values()):
            if not waiting.done():
                waiting.set_exception(TunnelClosedError("the tunnel was closed"))

    def close(self) -> None:
        """Close what was opened through the tunnel, and the tunnel. Closing twice is harmless."""
        super().close()
        self._streams.clear()

    # Connections.

    async def _open(self, info: AddressInfo, local: Any) -> Connection:
        self.check_open()
        tun, address = self._stack, info[4]
        own = ip_address(local[0]) if local else None
        connection = tun.host.connect(
            self._stack.packed(address[0]),
            address[1],
            tun.clock(),
            local=None if own is None or own.is_unspecified else own.packed,
            local_port=local[1] if local else 0,
        )
        opened = self._loop.create_future()

        def look() -> None:
            if connection.state not in OPENING and not opened.done():
                opened.set_result(None)

        tun.handlers[connection] = look
        tun.schedule()
        self._opening.add(opened)
        try:
            await opened
        except BaseException:
            self._drop(connection)
            raise
        finally:
            self._opening.discard(opened)
            tun.handlers.pop(connection, None)
        if connection.error is not None:
            raise OSError(connection.error.errno, f"Connect call failed {address}") from connection.error
        return connection

    def _drop(self, opened: Connection) -> None:
        opened.abort()
        self._stack.wake(opened)

    async def _attach(
        self,
        opened: Connection,
        protocol_factory: Callable[[], P],
        ssl: Context | None,
        server_hostname: str | None,
        ssl_handshake_timeout: float | None,
        ssl_shutdown_timeout: float | None,
    ) -> tuple[asyncio.Transport, P]:
        try:
            protocol = protocol_factory()
            if ssl is None:
                transport = StreamTransport(self._loop, self._stack, opened, protocol)
                self._transports.add(transport)
                transport.begin()
                return transport, protocol
        except BaseException:
            self._drop(opened)
            raise
        made, waiter = wrap(
            self._loop,
            protocol,
            ssl,
            server_side=False,
            server_hostname=server_hostname,
            handshake_timeout=ssl_handshake_timeout,
            shutdown_timeout=ssl_shutdown_timeout,
        )
        transport = StreamTransport(self._loop, self._stack, opened, made)
        self._transports.add(transport)
        transport.begin()
        try:
            await waiter
        except BaseException:
            transport.abort()
            raise
        return cast(asyncio.Transport, made._app_transport), protocol

    def _stream_loop(self) -> asyncio.AbstractEventLoop:
        if self._tls_loop is None:
            self._tls_loop = TlsLoop(self._loop)
        return cast(asyncio.AbstractEventLoop, self._tls_loop)

    async def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int = 0,
        *,
        ssl: Context | None = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Server:
        """As the event loop's, listening in the tunnel: `host` None is every address of the tunnel."""
        self.check_open()
        address, shown, size = await self._bindable(host, port, SOCK_STREAM)
        listener = self._stack.host.listen(address, port, backlog)
        own = (shown, listener.port, *((0, 0) if ":" in shown else ()))
        tls = (ssl, ssl_handshake_timeout, ssl_shutdown_timeout) if ssl is not None else None
        server = StackServer(self._stack, listener, protocol_factory, own, size, tls, self._transports)
        self._servers.add(server)
        return server

    async def _bindable(self, host: str | None, port: int, kind: int) -> tuple[bytes | None, str, int | None]:
        """The address to bind, None for all; as it is shown; the length of the addresses that may call, None: any."""
        if host is None:
            is_v6 = any(address.version == 6 for address in self.config.addresses)
            return None, "::" if is_v6 else "0.0.0.0", None
        (_, _, _, _, found), *_ = await self.getaddrinfo(host, port, type=kind)
        address = ip_address(found[0].partition("%")[0])
        if address.is_unspecified:
            return None, str(address), 4 if address.version == 4 else None
        packed = self._stack.packed(found[0])
        return packed, str(ip_address(packed)), None

    # Datagrams.

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], D],
        local_addr: tuple[str | None, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
    ) -> tuple[asyncio.DatagramTransport, D]:
        """As the event loop's: a UDP socket in the tunnel, bound, connected, or both to one family."""
        self.check_open()
        host, port = local_addr or ("0.0.0.0" if remote_addr is None else None, 0)
        address, shown, size = await self._bindable(host, port, SOCK_DGRAM)
        peer = None
        if remote_addr is not None:
            family = 0 if local_addr is None or host is None else AF_INET6 if ":" in shown else AF_INET
            infos = await self.getaddrinfo(*remote_addr, family=family, type=SOCK_DGRAM)
            peer = self._stack.packed(infos[0][4][0]), infos[0][4][1]
            address = address or self._source(peer[0])
            shown = str(ip_address(address))
        sock = self._stack.host.bind_udp(address, port)
        sock.peer = peer
        own = (shown, sock.port, *((0, 0) if ":" in shown else ()))
        try:
            protocol = protocol_factory()
            transport = DatagramTransport(self._loop, self._stack, sock, protocol, own, size)
        except BaseException:
            self._stack.host.close_udp(sock)
            raise
        self._transports.add(transport)
        return transport, protocol

    def _source(self, remote: bytes) -> bytes:
        own = next((known for known in self._stack.host.addresses if len(known) == len(remote)), None)
        if own is None:
            raise failure(ENETUNREACH)
        return own

    async def _ping(self, address: str, identifier: int, number: int, size: int) -> float:
        target = self._stack.packed(address)
        key = target, identifier.to_bytes(2) + number.to_bytes(2)
        answer = self._pings[key] = self._loop.create_future()
        began = self._loop.time()
        try:
            self._stack.host.ping(target, identifier, number, bytes(size), self._stack.clock())
            self._stack.schedule()
            await answer
        finally:
            del self._pings[key]
        return self._loop.time() - began

    def _echoed(self, news: News) -> None:
        for echo in news.echoes:
            key = echo.peer, echo.identifier.to_bytes(2) + echo.sequence.to_bytes(2)
            if (answer := self._pings.get(key)) is not None and not answer.done():
                answer.set_result(None)
        for told in news.unanswered:
            key = told.destination, told.number.to_bytes(4)
            answer = self._pings.get(key) if told.protocol in _ICMP else None
            if answer is not None and not answer.done():
                answer.set_exception(failure(told.error))

    # Sockets, for libraries that take one.

    async def connected_socket(self, host: str, port: int | str, type: int = SOCK_STREAM) -> Socket:
        """One end of a socketpair, whose other end is a connection, or a UDP socket. Raises as open_connection."""
        if type == SOCK_DGRAM:
            _, datagrams = await self.create_datagram_endpoint(DatagramBridge, remote_addr=(host, int(port)))
            return datagrams.theirs
        bridge = Bridge()
        sock = await paired(self._loop, bridge.other)
        try:
            transport, _ = await self.create_connection(lambda: bridge, host, port)
            for option in KEEPALIVE:  # which its owner cannot set
                transport.get_extra_info("socket").setsockopt(*option)
        except BaseException:
            bridge.other.transport.abort()
            sock.close()
            raise
        return sock

    async def listening_socket(self, address: tuple[str | None, int], *, backlog: int = 1024) -> Socket:
        """A socket for `accept`, which gives ends of socketpairs, whose other ends are the connections."""
        waker = Waker()
        sock = ListeningSocket(await paired(self._loop, waker))
        try:
            server = await self.create_server(lambda: Caller(sock, waker), *address, backlog=backlog)
        except BaseException:
            waker.transport.abort()
            sock.close()
            raise
        sock.own = server.sockets[0].getsockname()
        waker.on_end = server.close
        self._wakers.add(waker)
        return sock

    async def socket(self, family: int = AF_INET, type: int = SOCK_STREAM, proto: int = 0) -> NoReturn:
        """There are none: raises NamespaceError."""
        raise NamespaceError(_needs_namespace("socket()", "open_connection, connected_socket or listening_socket"))

    async def socket_factory(self) -> SocketFactory:
        """There are none: raises NamespaceError."""
        raise NamespaceError(_needs_namespace("socket_factory()", "connected_socket, or wgpy.forwarded"))

    async def create_subprocess_exec(self, *command: str, **options: Any) -> NoReturn:
        """A program needs a namespace: raises NamespaceError."""
        raise NamespaceError(_needs_namespace("a program", "`wgpy proxy` or `wgpy forward`, to which it connects"))


def _needs_namespace(what: str, instead: str) -> str:
    return f"{what} needs network=\"namespace\", and this tunnel's network is wgpy's own stack: use {instead}"
