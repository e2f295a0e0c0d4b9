"""A UDP port as any system has it, by asyncio alone: for systems whose sockets lack what `udp` makes use of.

Datagrams come and go one by one; neither the ECN field nor the local address of what comes is known.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from wgpy.burst import Datagrams
from wgpy.config.values import ALL_OFFLOADS, Offloads
from wgpy.endpoint import Endpoint
from wgpy.errors import SocketError
from wgpy.net.datagrams import Received, SendResult

_MOST_WAITING: Final = 1024  # datagrams that have come and were not read: more are lost, as in any socket's buffer
_BUFFER_SIZE: Final = 1 << 20  # bytes
_TRIES: Final = 16  # to find a port that is free in both families


class PlainUdp:
    """The sockets of one port, with the methods of UdpSockets."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        """Take over sockets that are bound to one port, one of a family."""
        self._sockets = {sock.family: sock for sock in sockets}
        self._transports: list[asyncio.BaseTransport] = []
        self._opening: list[asyncio.Task[None]] = []
        self._arrived: deque[Received] = deque()
        self._readable: Callable[[Any], bool] | None = None
        self.port: int = sockets[0].getsockname()[1]

    @classmethod
    def open(cls, port: int = 0, *, fwmark: int = 0, offloads: Offloads = ALL_OFFLOADS) -> PlainUdp:
        """Bind `port` (0: one that is free in both families) on all addresses; one family may be missing.

        Raises SocketError: port in use, no family at all, or a mark, which is Linux's.
        """
        if fwmark:
            raise SocketError("FwMark is Linux's: leave it out")
        for left in reversed(range(1 if port else _TRIES)):
            try:
                return cls(_bound(port))
            except OSError as error:
                if not left:
                    raise SocketError(f"cannot open UDP port {port}: {error.strerror}") from error
        raise AssertionError

    @property
    def sockets(self) -> list[Any]:
        """None that can be waited for: what finds no room is lost, as on the way."""
        return []

    def socket_for(self, endpoint: Endpoint) -> None:
        return None

    def set_fwmark(self, mark: int) -> None:
        """Raises SocketError."""
        if mark:
            raise SocketError("FwMark is Linux's: leave it out")

    def forget_refusals(self) -> None:
        """Nothing was refused."""

    def start_reading(self, loop: asyncio.AbstractEventLoop, readable: Callable[[Any], bool]) -> None:
        """Have `readable` called for what comes."""
        self._readable = readable
        for sock in self._sockets.values():
            self._opening.append(loop.create_task(self._open(loop, sock)))

    async def _open(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        copy = sock.dup()  # the transport closes its own, while we send by ours
        copy.setblocking(False)
        transport, _ = await loop.create_datagram_endpoint(lambda: _Port(self), sock=copy)
        if self._readable is None:
            transport.close()
        else:
            self._transports.append(transport)

    def stop_reading(self, loop: asyncio.AbstractEventLoop) -> None:
        self._readable = None
        for transport in self._transports:
            transport.close()
        self._transports.clear()

    def arrive(self, data: bytes, address: tuple[Any, ...]) -> None:
        """A datagram has come."""
        if self._readable is None or len(self._arrived) >= _MOST_WAITING or not data:
            return
        scope = address[3] if len(address) == 4 else 0
        self._arrived.append(Received(Datagrams.of(data), Endpoint(address[0].partition("%")[0], address[1], scope), 0))
        while self._arrived and self._readable is not None:
            self._readable(self)

    def receive(self, sock: object) -> Received | None:
        """The oldest datagram that has come; None if there is none."""
        return self._arrived.popleft() if self._arrived else None

    def send(self, datagrams: Datagrams, endpoint: Endpoint, traffic_class: int) -> SendResult:
        """Send each; what the system does not take is counted as refused."""
        family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
        address: Any = (endpoint.host, endpoint.port)
        if endpoint.is_ipv6:
            address += (0, endpoint.scope_id)
        sock = self._sockets.get(family)
        refused = refused_bytes = 0
        for datagram in datagrams:
            try:
                if sock is None:
                    raise OSError
                sock.sendto(datagram, address)
            except OSError:
                refused, refused_bytes = refused + 1, refused_bytes + len(datagram)
        return SendResult(None, refused, refused_bytes)

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()


class _Port(asyncio.DatagramProtocol):
    def __init__(self, udp: PlainUdp) -> None:
        self._udp = udp

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._udp.arrive(data, addr)


def _bound(port: int) -> list[socket.socket]:
    """Sockets of both families, or of the one there is, at one port. Raises OSError."""
    made: list[socket.socket] = []
    try:
        for family, wildcard in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM)
            except OSError:
                continue
            made.append(sock)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_SIZE)
            sock.setblocking(False)
            sock.bind((wildcard, port))
            port = sock.getsockname()[1]
    except BaseException:
        for sock in made:
            sock.close()
        raise
    if not made:
        raise OSError(0, "neither IPv4 nor IPv6 sockets are available")
    return made
