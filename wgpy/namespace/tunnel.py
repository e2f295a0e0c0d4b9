"""A tunnel in a network namespace of its own, and the kernel's sockets in there, without root.

The TUN is opened in the namespace by a helper process, which hands it over; the tunnel's UDP socket stays in the
caller's network. Sockets made in the namespace come the same way: their traffic goes through the tunnel or nowhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SHUT_RDWR,
    SO_REUSEADDR,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
    SOL_SOCKET,
)
from socket import socket as Socket
from typing import Any, ClassVar, Final, TypeVar
from weakref import WeakSet

from wgpy.config.values import InterfaceConfig, Offloads
from wgpy.device.effects import Event
from wgpy.namespace.client import Helper, SocketFactory
from wgpy.net.streams import Server
from wgpy.rootless.names import AddressInfo
from wgpy.rootless.tunnel import Context, NetworkKind, RootlessTunnel
from wgpy.stack import icmp
from wgpy.system.interpreter import isolated
from wgpy.tun.linux import LinuxTun

P = TypeVar("P", bound=asyncio.BaseProtocol)
D = TypeVar("D", bound=asyncio.DatagramProtocol)

_MAX_PACKET: Final = 1 << 16
_RECVERR_V4: Final = (IPPROTO_IP, 11)  # linux/in.h and in6.h
_RECVERR_V6: Final = (IPPROTO_IPV6, 25)


class NamespaceTunnel(RootlessTunnel):
    """A tunnel whose interface is alone in a network namespace, with the kernel's sockets in there: made by `connect`.

    Peers are added, changed and removed by `configure` and `reconfigure`. Closing it closes all that was opened through
    it: streams then raise TunnelClosedError.
    """

    network: ClassVar[NetworkKind] = "namespace"
    """The kernel's own, in a network namespace."""
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
        self._factories: list[SocketFactory] = []
        self._ending: asyncio.Future[None] | None = None
        helper.on_end = self._fail

    # Life.

    @property
    def mtu(self) -> int:
        """The inner MTU in bytes. Setting it raises AttributeError: `reconfigure` changes it, the kernel's too."""
        return super().mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        raise AttributeError(
            "the kernel's interface in the tunnel's namespace would keep its MTU: change it by "
            f"`await tunnel.reconfigure(dataclasses.replace(tunnel.config, mtu={mtu}))`"
        )

    async def _bring_up(self) -> None:
        await self._helper.ask("configure", [str(address) for address in self.config.addresses], self.mtu)

    async def _mtu_changed(self) -> None:
        await self._helper.ask("configure", [], self.mtu)

    async def __aexit__(self, *error: object) -> None:
        if self._why_closed:
            return
        try:
            await super().__aexit__(*error)
        finally:
            if self._ending:
                await self._ending

    def close(self) -> None:
        """Close what was opened through the tunnel, the tunnel, and the namespace. Closing twice is harmless."""
        if self._why_closed:
            return
        last_of_tun = os.dup(self._tun_fd)
        super().close()
        for factory in self._factories:
            factory.close()
        self._helper.close()
        for fd in self.namespaces:
            os.close(fd)
        # With its last descriptor the interface goes, for which the kernel takes some 20 ms.
        self._ending = self._loop.run_in_executor(None, os.close, last_of_tun)

    def _end_connections(self) -> None:
        super()._end_connections()
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

    async def _open(self, info: AddressInfo, local: Any) -> Socket:
        family, kind, protocol, _, address = info
        sock = await self.socket(family, kind, protocol)
        try:
            if local is not None:
                sock.bind(local)
            await self._loop.sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock

    def _drop(self, opened: Socket) -> None:
        opened.close()

    async def _attach(
        self,
        opened: Socket,
        protocol_factory: Callable[[], P],
        ssl: Context | None,
        server_hostname: str | None,
        ssl_handshake_timeout: float | None,
        ssl_shutdown_timeout: float | None,
    ) -> tuple[asyncio.Transport, P]:
        try:
            transport, protocol = await self._loop.create_connection(
                protocol_factory,
                sock=opened,
                ssl=ssl,
                server_hostname=server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
            )
        except BaseException:
            opened.close()
            raise
        self._transports.add(transport)
        return transport, protocol

    async def connected_socket(self, host: str, port: int | str, type: int = SOCK_STREAM) -> Socket:
        """A socket connected to a host through the tunnel, for libraries that take one. Raises as open_connection."""
        sock: Socket = await self._reach(host, port, type=type)
        return sock

    async def listening_socket(self, address: tuple[str | None, int], *, backlog: int = 1024) -> Socket:
        """A socket that listens at an address of the tunnel, or at all of them if the host is None, for `accept`."""
        sock = await self.bound_socket(address)
        sock.listen(backlog)
        return sock

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
        """As the event loop's, listening in the namespace: `host` None is every address of the tunnel."""
        sock = await self.bound_socket((host, port))
        server = await self._loop.create_server(
            protocol_factory,
            sock=sock,
            ssl=ssl,
            backlog=backlog,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        self._servers.add(server)
        return server

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], D],
        local_addr: tuple[str | None, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
    ) -> tuple[asyncio.DatagramTransport, D]:
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

    async def _ping(self, address: str, identifier: int, number: int, size: int) -> float:
        target = ip_address(address.partition("%")[0]).packed
        is_v4 = len(target) == 4
        family, protocol = (AF_INET, IPPROTO_ICMP) if is_v4 else (AF_INET6, IPPROTO_ICMPV6)
        # Of ICMPv6 the kernel writes the checksum, which covers the addresses (RFC 3542, 3.1).
        request = icmp.echo(bytes(len(target)), target, identifier, number, bytes(size), is_reply=False)
        sock = await self.socket(family, SOCK_RAW, protocol)
        with sock:
            sock.setsockopt(*(_RECVERR_V4 if is_v4 else _RECVERR_V6), 1)  # or soft errors are not told (raw(7))
            sock.connect((address, 0))  # at once; an event loop would look the address up for this type of socket
            began = self._loop.time()
            await self._loop.sock_sendall(sock, request)
            while True:
                message = await self._loop.sock_recv(sock, _MAX_PACKET)
                if is_v4:
                    message = message[(message[0] & 15) * 4 :]
                if message[:1] == bytes((icmp.ECHO_REPLY[len(target)],)) and message[4:8] == request[4:8]:
                    return self._loop.time() - began

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

        /etc/resolv.conf there has the configuration's DNS servers, or none. The process is killed when this one ends.
        It exits with 127 for a command that is not found, 126 for one that cannot be run, 125 if it may not enter.
        """
        self.check_open()
        words = [f"nameserver {server}" for server in self.config.dns]
        words += [f"search {' '.join(self.config.dns_search)}"] if self.config.dns_search else []
        resolv_conf = "".join(f"{line}\n" for line in words)
        arguments = f"{self.namespaces!r}, {resolv_conf!r}, {command!r}"
        entering = isolated("namespace.enter", arguments)
        return await asyncio.create_subprocess_exec(*entering, pass_fds=self.namespaces, **options)
