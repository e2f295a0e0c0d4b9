"""A tunnel with a network of its own, for which no privileges are needed: asyncio's interface to it.

The network is the kernel's in a namespace (`wgpy.namespace`), or a TCP/IP stack in this process (`wgpy.userspace`).
What does not depend on that is here: names, several addresses of one host, streams, and what closing means.
"""

from __future__ import annotations

import asyncio
import os
import ssl as ssl_module
import sys
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import cached_property
from itertools import count
from socket import AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, SOCK_DGRAM, SOCK_STREAM
from socket import socket as Socket
from typing import Any, ClassVar, Final, Literal, NoReturn, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from wgpy.config.values import InterfaceConfig, tunnel_mtu
from wgpy.constants import DEFAULT_MTU
from wgpy.datapath import machine_clock
from wgpy.endpoint import Endpoint
from wgpy.errors import TunnelClosedError
from wgpy.net.admission import client_of
from wgpy.net.streams import Server
from wgpy.rootless.eyeballs import DELAY, first_of, interleaved
from wgpy.rootless.names import AddressInfo, look_up
from wgpy.tunnel import Tunnel

NetworkKind = Literal["namespace", "stack"]
Context = ssl_module.SSLContext
ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]
SocketFactory = Callable[..., Socket]

P = TypeVar("P", bound=asyncio.BaseProtocol)
D = TypeVar("D", bound=asyncio.DatagramProtocol)

_IP_MTU: Final = 14  # linux/in.h and in6.h
_IPV6_MTU: Final = 24
_TURNS: Final = 3  # of the loop, in which sockets are closed, and what that sends leaves through the tunnel
_numbers = count(1)  # of echo requests


class RootlessTunnel(Tunnel):
    """A Tunnel with a network of its own, made by `connect`: programs connect and listen in it as in the system's.

    Peers are added, changed and removed by `configure` and `reconfigure`. Closing it closes all that was opened through
    it: streams then raise TunnelClosedError.
    """

    network: ClassVar[NetworkKind]
    """Whose TCP/IP it has: "namespace" for the kernel's, "stack" for wgpy's own."""

    # What was opened through the tunnel.

    @cached_property
    def _streams(self) -> WeakKeyDictionary[asyncio.StreamWriter, asyncio.StreamReader]:
        return WeakKeyDictionary()

    @cached_property
    def _transports(self) -> WeakSet[asyncio.BaseTransport]:
        return WeakSet()

    @cached_property
    def _servers(self) -> WeakSet[Any]:
        return WeakSet()

    # Life.

    async def start(self, *, up: bool = True) -> None:
        """As Tunnel.start, and give the network its addresses, MTU and routes."""
        try:
            self._take_over_mtu(self.config.mtu or DEFAULT_MTU)
            await super().start(up=up)
            self._take_over_mtu(self.config.mtu or await self._suitable_mtu())
            await self._bring_up()
        except BaseException:
            self.close()
            raise

    async def _suitable_mtu(self) -> int:
        udp = self._path.udp
        if udp is None or not udp.sockets:
            return DEFAULT_MTU
        # In a thread: with very many peers it takes long.
        return await asyncio.to_thread(suitable_mtu, self.config, self.endpoints())

    async def reconfigure(self, config: InterfaceConfig) -> None:
        """As Tunnel.reconfigure. The network takes over another MTU, open connections too; its addresses stay."""
        await super().reconfigure(config)
        mtu = config.mtu or await self._suitable_mtu()
        if mtu != self.mtu:
            self._take_over_mtu(mtu)
            await self._mtu_changed()

    async def _mtu_changed(self) -> None:
        """Tell the network of the tunnel's MTU, if it has not heard of it from the TUN."""

    @abstractmethod
    async def _bring_up(self) -> None:
        """Give the network the addresses and the MTU."""

    async def __aexit__(self, *error: object) -> None:
        if self._why_closed:
            return
        self._end_connections()
        try:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        finally:
            self.close()

    def close(self) -> None:
        """Close what was opened through the tunnel, the tunnel, and its network. Closing twice is harmless."""
        if not self._why_closed:
            self._end_connections()
        super().close()

    def client_of(self, address: object) -> str:
        """Who counts as one client of a relay that listens in the tunnel, from a socket's address: the peer.

        A peer may have as many addresses as its allowed IPs contain.
        """
        host = str(address[0]) if isinstance(address, tuple) else ""
        peer = self.peer_at(host) if host else None
        return peer.base64() if peer else client_of(address)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a tunnel stays in its process: give another one the configuration, or a socket of the tunnel")

    def _end_connections(self) -> None:
        error = TunnelClosedError("the tunnel was closed while this connection was open")
        for server in list(self._servers):
            server.close()
        for writer, reader in list(self._streams.items()):
            if not writer.is_closing():
                reader.set_exception(error)
                writer.transport.abort()
        for transport in list(self._transports):
            transport.close()

    @property
    def clock_is_real(self) -> bool:
        """Whether time passes here while threads work."""
        return self._clock is machine_clock

    # Names.

    async def getaddrinfo(
        self,
        host: str | None,
        port: int | str | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """As socket.getaddrinfo, names resolved by the configuration's DNS through the tunnel.

        Search domains complete names as in resolv.conf(5). Only families are asked for of which the tunnel has an
        address. Raises ResolveError.
        """
        return await look_up(self, host, port, family, type, proto, flags)

    # Connections.

    async def create_connection(
        self,
        protocol_factory: Callable[[], P],
        host: str,
        port: int | str,
        *,
        ssl: Context | bool | None = None,
        family: int = 0,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = DELAY,
    ) -> tuple[asyncio.Transport, P]:
        """As the event loop's, through the tunnel; times are seconds.

        Of several addresses the next is tried when the last has failed, or beside it after `happy_eyeballs_delay`
        (RFC 8305). Raises OSError of the last address, ResolveError, ssl.SSLError, TunnelClosedError.
        """
        opened = await self._reach(host, port, family, local_addr, happy_eyeballs_delay)
        context = ssl_module.create_default_context() if ssl is True else ssl or None
        name = (host if server_hostname is None else server_hostname) if context else None
        transport, protocol = await self._attach(
            opened, protocol_factory, context, name, ssl_handshake_timeout, ssl_shutdown_timeout
        )
        return transport, protocol

    async def _reach(
        self,
        host: str,
        port: int | str,
        family: int = 0,
        local_addr: tuple[str, int] | None = None,
        delay: float | None = DELAY,
        type: int = SOCK_STREAM,
    ) -> Any:
        """Whatever the network has for a connection: the first that opens of those to a host's addresses."""
        self.check_open()
        infos = await self.getaddrinfo(host, port, family=family, type=type)
        if len(infos) > 1:
            infos = interleaved(list({info[4][:2]: info for info in infos}.values()), lambda info: info[0])
        local = (await self.getaddrinfo(*local_addr, family=infos[0][0], type=type))[0][4] if local_addr else None
        return await first_of(infos, lambda info: self._open(info, local), self._drop, delay)

    @abstractmethod
    async def _open(self, info: AddressInfo, local: Any) -> Any:
        """Open a connection, or a connected socket of datagrams. Raises OSError as an event loop's sock_connect."""

    @abstractmethod
    def _drop(self, opened: Any) -> None:
        """Close what `_open` returned."""

    @abstractmethod
    async def _attach(
        self,
        opened: Any,
        protocol_factory: Callable[[], P],
        ssl: Context | None,
        server_hostname: str | None,
        ssl_handshake_timeout: float | None,
        ssl_shutdown_timeout: float | None,
    ) -> tuple[asyncio.Transport, P]:
        """A transport for what `_open` returned, which is closed if this raises."""

    async def open_connection(
        self,
        host: str,
        port: int | str,
        *,
        ssl: Context | bool | None = None,
        family: int = 0,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = DELAY,
        limit: int = 1 << 16,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As asyncio.open_connection, through the tunnel: `create_connection` with streams. Raises as that does.

        `limit` is the size of the reader's buffer, in bytes.
        """
        loop = self._stream_loop()
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await self.create_connection(
            lambda: protocol,
            host,
            port,
            ssl=ssl,
            family=family,
            local_addr=local_addr,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            happy_eyeballs_delay=happy_eyeballs_delay,
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._streams[writer] = reader
        return reader, writer

    def _stream_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that streams are to use."""
        return self._loop

    # Servers.

    @abstractmethod
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
        """As the event loop's, listening in the tunnel's network: `host` None is every address of the tunnel.

        Raises OSError: EADDRINUSE, EADDRNOTAVAIL.
        """

    async def start_server(
        self,
        client_connected_cb: ClientConnected,
        host: str | None = None,
        port: int = 0,
        *,
        ssl: Context | None = None,
        limit: int = 1 << 16,
        backlog: int = 1024,
    ) -> Server:
        """As asyncio.start_server, listening in the tunnel's network: `host` None is every address of the tunnel.

        In a namespace that is one socket for both families where the tunnel has both: IPv4 callers are then
        ::ffff:192.0.2.1 to it.
        """

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._streams[writer] = reader
            if (answering := client_connected_cb(reader, writer)) is not None:
                with suppress(TunnelClosedError):  # which whoever closed the tunnel knows
                    await answering

        def protocol() -> asyncio.StreamReaderProtocol:
            reader = asyncio.StreamReader(limit=limit, loop=loop)
            return asyncio.StreamReaderProtocol(reader, connected, loop=loop)

        self.check_open()
        loop = self._stream_loop()
        return await self.create_server(protocol, host, port, ssl=ssl, backlog=backlog)

    # Datagrams.

    @abstractmethod
    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], D],
        local_addr: tuple[str | None, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
    ) -> tuple[asyncio.DatagramTransport, D]:
        """As the event loop's: a UDP socket in the tunnel's network, bound, connected, or both to one family."""

    async def ping(self, host: str, *, size: int = 56, timeout: float = 5.0) -> float:  # noqa: ASYNC109
        """Send an ICMP echo request with `size` bytes of data; returns the seconds until its reply came.

        Raises TimeoutError after `timeout` seconds, OSError where the host cannot be reached, ResolveError.
        """
        self.check_open()
        (_, _, _, _, address), *_ = await self.getaddrinfo(host, 0, type=SOCK_DGRAM)
        async with asyncio.timeout(timeout):
            return await self._ping(address[0], int.from_bytes(os.urandom(2)), next(_numbers) & 0xFFFF, size)

    @abstractmethod
    async def _ping(self, address: str, identifier: int, number: int, size: int) -> float:
        """Send one echo request and wait for its reply, however long."""

    # Sockets, for libraries that take one.

    @abstractmethod
    async def connected_socket(self, host: str, port: int | str, type: int = SOCK_STREAM) -> Socket:
        """A socket connected to a host through the tunnel, for libraries that take one. Raises as open_connection.

        Of a stack it is one end of a socketpair, whose other end is the connection: it has no addresses.
        """

    @abstractmethod
    async def listening_socket(self, address: tuple[str | None, int], *, backlog: int = 1024) -> Socket:
        """A socket that listens at an address of the tunnel, of all of them if the host is None, for `accept`.

        Raises as `create_server`.
        """

    @abstractmethod
    async def socket(self, family: int = AF_INET, type: int = SOCK_STREAM, proto: int = 0) -> Socket:
        """A socket of the kernel's in the tunnel's namespace, non-blocking: yours to use and close.

        Raises OSError as socket.socket does, TunnelClosedError, and NamespaceError when the helper is gone, or where
        the network is a stack, which has no such sockets.
        """

    @abstractmethod
    async def socket_factory(self) -> SocketFactory:
        """A plain function that makes sockets as `socket` does, blocking ones, for libraries that call for one.

        It is closed with the tunnel; the sockets that it made are their owners' to close. Raises as `socket`.
        """

    @abstractmethod
    async def create_subprocess_exec(self, *command: str, **options: Any) -> asyncio.subprocess.Process:
        """As asyncio.create_subprocess_exec, in the tunnel's namespace: all its traffic goes through the tunnel.

        /etc/resolv.conf there has the configuration's DNS servers, or none. The process is killed when this one ends.
        It exits with 127 for a command that is not found, 126 for one that cannot be run, 125 if it may not enter.
        Raises NamespaceError where the network is a stack.
        """


def suitable_mtu(config: InterfaceConfig, endpoints: Iterable[Endpoint]) -> int:
    """By the smallest MTU on the way to an endpoint, as a connected socket of Linux knows it; bytes."""
    known = []
    for endpoint in endpoints if sys.platform == "linux" else ():
        family = AF_INET6 if endpoint.is_ipv6 else AF_INET
        option = (IPPROTO_IPV6, _IPV6_MTU) if endpoint.is_ipv6 else (IPPROTO_IP, _IP_MTU)
        with suppress(OSError), Socket(family, SOCK_DGRAM) as sock:
            sock.connect((endpoint.host, endpoint.port, 0, endpoint.scope_id)[: 4 if endpoint.is_ipv6 else 2])
            known.append(sock.getsockopt(*option))
    if not known:
        return DEFAULT_MTU
    return tunnel_mtu(min(known), (*config.addresses, *(net for peer in config.peers for net in peer.allowed_ips)))
