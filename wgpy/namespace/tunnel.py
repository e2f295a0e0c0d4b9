"""A tunnel in a network namespace of its own, and the kernel's sockets in there, without root.

The TUN is opened in the namespace by a helper process, which hands it over; the tunnel's UDP socket stays in the
caller's network. Sockets made in the namespace come the same way: their traffic goes through the tunnel or nowhere.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from ipaddress import ip_address
from socket import (
    AF_INET,
    AF_INET6,
    AI_NUMERICHOST,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SHUT_RDWR,
    SO_REUSEADDR,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    AddressFamily,
    SocketKind,
)
from socket import getaddrinfo as system_getaddrinfo
from socket import socket as Socket
from typing import Any, Final, NoReturn, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from wgpy.config.values import InterfaceConfig, Offloads, tunnel_mtu
from wgpy.constants import DEFAULT_MTU
from wgpy.device.effects import Event
from wgpy.endpoint import Endpoint
from wgpy.errors import TunnelClosedError
from wgpy.namespace.client import Helper, SocketFactory, isolated
from wgpy.tun.linux import LinuxTun
from wgpy.tunnel import Tunnel

AddressInfo = tuple[AddressFamily, SocketKind, int, str, tuple[Any, ...]]
ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]

P = TypeVar("P", bound=asyncio.DatagramProtocol)

_IP_MTU: Final = 14  # linux/in.h and in6.h
_IPV6_MTU: Final = 24
_RESOLVER: Final = "wgpy.namespace.resolver"
_TURNS: Final = 3  # of the loop, in which sockets are closed, and what that sends leaves through the tunnel


class NamespaceTunnel(Tunnel):
    """A Tunnel whose interface is alone in a network namespace, with sockets in there: made by `connect`.

    Peers are added, changed and removed by `configure` and `reconfigure`. Closing it closes all that was opened through
    it: streams then raise TunnelClosedError.
    """

    namespaces: tuple[int, ...]
    """File descriptors for `setns`: of its network namespace and, if one was made, of its user namespace."""

    def __init__(
        self,
        config: InterfaceConfig,
        helper: Helper,
        tun_fd: int,
        namespaces: Sequence[int],
        *,
        on_event: Callable[[Event], None] | None,
        offloads: Offloads,
    ) -> None:
        """Use `connect`."""
        tun = LinuxTun.adopt(tun_fd, offload=offloads.tun)
        super().__init__(config, tun=tun, on_event=on_event, offloads=offloads)
        self.namespaces = tuple(namespaces)
        self._tun_fd = tun_fd
        self._helper = helper
        self._sockets: WeakSet[Socket] = WeakSet()
        self._streams: WeakKeyDictionary[asyncio.StreamWriter, asyncio.StreamReader] = WeakKeyDictionary()
        self._transports: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._servers: WeakSet[asyncio.AbstractServer] = WeakSet()
        self._factories: list[SocketFactory] = []
        self._ending: asyncio.Future[None] | None = None
        helper.on_end = self._fail

    # Life.

    async def start(self, *, up: bool = True) -> None:
        """As Tunnel.start, and give the interface its addresses, MTU and routes."""
        try:
            self.mtu = self.config.mtu or DEFAULT_MTU
            await super().start(up=up)
            self.mtu = self.config.mtu or _suitable_mtu(self.config, self.endpoints())
            await self._helper.ask("configure", [str(address) for address in self.config.addresses], self.mtu)
        except BaseException:
            self.close()
            raise

    async def __aexit__(self, *error: object) -> None:
        if self._why_closed:
            return
        self._end_connections()
        try:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        finally:
            self.close()
            if self._ending:
                await self._ending

    def close(self) -> None:
        """Close what was opened through the tunnel, the tunnel, and the namespace. Closing twice is harmless."""
        if self._why_closed:
            return
        self._end_connections()
        last_of_tun = os.dup(self._tun_fd)
        super().close()
        for factory in self._factories:
            factory.close()
        self._helper.close()
        for fd in self.namespaces:
            os.close(fd)
        # With its last descriptor the interface goes, for which the kernel takes some 20 ms.
        self._ending = self._loop.run_in_executor(None, os.close, last_of_tun)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a tunnel stays in its process: give another one the configuration, or a socket of the tunnel")

    def _end_connections(self) -> None:
        error = TunnelClosedError("the tunnel was closed while this connection was open")
        for server in self._servers:
            server.close()
        for writer, reader in list(self._streams.items()):
            if not writer.is_closing():
                reader.set_exception(error)
                writer.transport.abort()
        for transport in list(self._transports):
            transport.close()
        for sock in list(self._sockets):
            with suppress(OSError):  # not connected, or closed by its owner
                sock.shutdown(SHUT_RDWR)

    # Sockets.

    async def socket(self, family: int = AF_INET, type: int = SOCK_STREAM, proto: int = 0) -> Socket:
        """A socket of the kernel's in the tunnel's namespace, non-blocking: yours to use and close.

        Raises OSError as socket.socket does, TunnelClosedError, and NamespaceError when the helper is gone.
        """
        self.check_open()
        (fd,) = await self._helper.ask("socket", int(family), int(type), proto, fds=1)
        sock = Socket(fileno=fd)
        sock.setblocking(False)
        self._sockets.add(sock)
        return sock

    async def socket_factory(self) -> SocketFactory:
        """A plain function that makes sockets as `socket` does, blocking ones, for libraries that call for one.

        It is closed with the tunnel; the sockets that it made are their owners' to close.
        """
        self.check_open()
        (fd,) = await self._helper.ask("channel", fds=1)
        factory = SocketFactory(fd)
        self._factories.append(factory)
        return factory

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
        hosts = [host] if host is None or _is_numeric(host) else await self._resolve(host, family)
        found: list[Any] = []
        for numeric in hosts:
            found += system_getaddrinfo(numeric, port, family, type, proto, flags | AI_NUMERICHOST)
        return found

    async def _resolve(self, host: str, family: int) -> list[str]:
        versions = {address.version for address in self.config.addresses}
        own = {known for known, version in ((AF_INET, 4), (AF_INET6, 6)) if version in versions}
        families = own & {family} if family else own
        if host.rstrip(".").lower() == "localhost":  # the namespace's own (RFC 6761, 6.3)
            return ["::1"] * (AF_INET6 in families) + ["127.0.0.1"] * (AF_INET in families)
        if _RESOLVER not in sys.modules:
            await asyncio.to_thread(import_module, _RESOLVER)  # dnspython takes a tenth of a second
        from wgpy.namespace.resolver import resolve

        return await resolve(host, families, self.config, self.socket)

    async def open_connection(
        self,
        host: str,
        port: int | str,
        *,
        ssl: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        limit: int = 1 << 16,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As asyncio.open_connection, through the tunnel: one address of the host after the other.

        Raises OSError of the last address, ResolveError, ssl.SSLError, TunnelClosedError.
        """
        sock = await self.connected_socket(host, port)
        name = (server_hostname or host) if ssl else None
        try:
            reader, writer = await asyncio.open_connection(sock=sock, ssl=ssl, server_hostname=name, limit=limit)
        except BaseException:
            sock.close()
            raise
        self._streams[writer] = reader
        return reader, writer

    async def connected_socket(self, host: str, port: int | str, type: int = SOCK_STREAM) -> Socket:
        """A socket connected to a host through the tunnel, for libraries that take one. Raises as open_connection."""
        failure: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in await self.getaddrinfo(host, port, type=type):
            try:
                sock = await self.socket(family, kind, protocol)
                try:
                    await self._loop.sock_connect(sock, address)
                except BaseException:
                    sock.close()
                    raise
                return sock
            except TunnelClosedError:
                raise
            except OSError as error:
                failure = error
        raise failure

    async def start_server(
        self,
        client_connected_cb: ClientConnected,
        host: str | None = None,
        port: int = 0,
        *,
        ssl: ssl.SSLContext | None = None,
        limit: int = 1 << 16,
        backlog: int = 1024,
    ) -> asyncio.Server:
        """As asyncio.start_server, listening in the namespace: `host` None is every address of the tunnel.

        That is one socket for both families where the tunnel has both: IPv4 callers are then ::ffff:192.0.2.1 to it.
        """
        sock = await self.bound_socket((host, port))

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._streams[writer] = reader
            if (answering := client_connected_cb(reader, writer)) is not None:
                with suppress(TunnelClosedError):  # which whoever closed the tunnel knows
                    await answering

        server = await asyncio.start_server(connected, sock=sock, ssl=ssl, limit=limit, backlog=backlog)
        self._servers.add(server)
        return server

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str | None, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
    ) -> tuple[asyncio.DatagramTransport, P]:
        """As the event loop's: a UDP socket in the namespace, bound, connected, or both to one family."""
        if local_addr is not None:
            sock = await self.bound_socket(local_addr, SOCK_DGRAM)
            if remote_addr is not None:
                infos = await self.getaddrinfo(*remote_addr, family=sock.family, type=SOCK_DGRAM)
                await self._loop.sock_connect(sock, infos[0][4])
        elif remote_addr is not None:
            sock = await self.connected_socket(*remote_addr, type=SOCK_DGRAM)
        else:
            sock = await self.socket(AF_INET, SOCK_DGRAM)
        transport, protocol = await self._loop.create_datagram_endpoint(protocol_factory, sock=sock)
        self._transports.add(transport)
        return transport, protocol

    async def bound_socket(self, address: tuple[str | None, int], kind: int = SOCK_STREAM) -> Socket:
        """A socket bound to an address of the tunnel; to all of them, of both families, if the host is None."""
        host, port = address
        if host is None:
            sock = await self._wildcard_socket(kind)
            bound: Any = ("::" if sock.family == AF_INET6 else "0.0.0.0", port)
        else:
            (family, _, _, _, bound), *_ = await self.getaddrinfo(host, port, type=kind)
            sock = await self.socket(family, kind)
        try:
            if kind == SOCK_STREAM:
                sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            sock.bind(bound)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _wildcard_socket(self, kind: int) -> Socket:
        if all(address.version == 4 for address in self.config.addresses):
            return await self.socket(AF_INET, kind)
        sock = await self.socket(AF_INET6, kind)
        sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
        return sock

    async def create_subprocess_exec(self, *command: str, **options: Any) -> asyncio.subprocess.Process:
        """As asyncio.create_subprocess_exec, in the tunnel's namespace: all its traffic goes through the tunnel.

        /etc/resolv.conf names the configuration's DNS there, or nobody. The process is killed when this one ends. It
        exits with 127 for a command that is not found, 126 for one that cannot be run, 125 if it may not enter.
        """
        self.check_open()
        words = [f"nameserver {server}" for server in self.config.dns]
        words += [f"search {' '.join(self.config.dns_search)}"] if self.config.dns_search else []
        resolv_conf = "".join(f"{line}\n" for line in words)
        arguments = f"{self.namespaces!r}, {resolv_conf!r}, {command!r}"
        return await asyncio.create_subprocess_exec(*isolated("enter", arguments), pass_fds=self.namespaces, **options)


def _is_numeric(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _suitable_mtu(config: InterfaceConfig, endpoints: Iterable[Endpoint]) -> int:
    """By the smallest MTU on the way to an endpoint, as a connected socket knows it."""
    known = []
    for endpoint in endpoints:
        family = AF_INET6 if endpoint.is_ipv6 else AF_INET
        option = (IPPROTO_IPV6, _IPV6_MTU) if endpoint.is_ipv6 else (IPPROTO_IP, _IP_MTU)
        with suppress(OSError), Socket(family, SOCK_DGRAM) as sock:
            sock.connect((endpoint.host, endpoint.port, 0, endpoint.scope_id)[: 4 if endpoint.is_ipv6 else 2])
            known.append(sock.getsockopt(*option))
    if not known:
        return DEFAULT_MTU
    return tunnel_mtu(min(known), (*config.addresses, *(net for peer in config.peers for net in peer.allowed_ips)))
