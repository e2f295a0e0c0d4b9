"""A UDP socket of the stack as an asyncio transport."""

from __future__ import annotations

import asyncio
from collections import deque
from errno import ENOBUFS
from socket import SOCK_DGRAM
from typing import Any

from wgpy.stack import udp
from wgpy.userspace.flow import FlowControl
from wgpy.userspace.sockets import SocketView, sockaddr
from wgpy.userspace.tun import StackTun


class DatagramTransport(FlowControl, asyncio.DatagramTransport):
    """As the event loop's own: what finds no room in the host's queue waits here."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tun: StackTun,
        sock: udp.UdpSocket,
        protocol: asyncio.DatagramProtocol,
        own: tuple[Any, ...],
        size: int | None,
    ) -> None:
        """`own` is the socket's name; `size` the length of addresses it takes datagrams from, None for both."""
        peer = sockaddr(*sock.peer) if sock.peer else None
        extra = {"sockname": own, "socket": SocketView(SOCK_DGRAM, own, peer)}
        super().__init__(extra | ({"peername": peer} if peer else {}))
        self._loop, self._tun, self._udp, self._size = loop, tun, sock, size
        self._protocol = protocol
        self._waiting: deque[tuple[bytes, udp.Address]] = deque()
        self._held = 0  # bytes that wait
        self._closing = False
        tun.handlers[sock] = self._look
        protocol.connection_made(self)

    def _look(self) -> None:
        """Datagrams, or an error about one, have come."""
        if (error := self._udp.error) is not None:
            self._udp.error = None
            self._call("error_received", error)
        while not self._closing and (datagram := self._udp.take()) is not None:
            if self._size in (None, len(datagram.source[0])):
                self._call("datagram_received", datagram.payload, sockaddr(*datagram.source))

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._closing:
            return
        peer = self._udp.peer
        if addr is None and peer is None:
            raise ValueError("the socket is not connected: give the address to send to")
        try:
            destination = peer or (self._tun.packed(str(addr[0])), int(addr[1]))
        except OSError as error:
            self._call("error_received", error)
            return
        if peer is not None and addr not in (None, sockaddr(*peer), sockaddr(*peer)[:2]):
            raise ValueError(f"Invalid address: must be None or {sockaddr(*peer)}")
        if self._waiting or not self._send(bytes(data), destination):
            self._waiting.append((bytes(data), destination))
            self._held += len(data)
            self._tun.on_room[self._flush] = None
            self._pause_writes()

    def _send(self, data: bytes, destination: udp.Address) -> bool:
        """False if there is no room at present."""
        try:
            self._tun.host.send_udp(self._udp, data, destination, self._tun.clock())
        except OSError as error:
            if error.errno == ENOBUFS:
                return False
            self._call("error_received", error)
        self._tun.schedule()
        return True

    def _flush(self) -> None:
        while self._waiting and self._send(*self._waiting[0]):
            self._held -= len(self._waiting.popleft()[0])
        if self._waiting:
            self._tun.on_room[self._flush] = None
        self._resume_writes()
        if self._closing and not self._waiting:
            self._end()

    def get_write_buffer_size(self) -> int:
        return self._held

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._waiting:
                self._end()

    def abort(self) -> None:
        if not self._closing or self._waiting:
            self._closing = True
            self._waiting.clear()
            self._end()

    def break_off(self) -> None:
        """The tunnel is closed under the socket."""
        self.abort()

    def _end(self) -> None:
        if self._tun.handlers.pop(self._udp, None) is None:
            return
        self._tun.host.close_udp(self._udp)
        self._loop.call_soon(self._protocol.connection_lost, None)
