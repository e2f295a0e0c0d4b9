"""The channel between the control process and a worker: short messages, with file descriptors, over a socket pair.

A message is a header, some JSON or the text of the userspace API, and, from control to a worker only, descriptors
(SCM_RIGHTS). A worker faces the network, so control believes nothing that it says without a check: kinds and sizes are
limited, descriptors that it sends are discarded by the kernel, and nothing is unpickled.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Any, Final, NamedTuple

from wgpy.errors import ControlError

MAX_LONG: Final = 1 << 28  # bytes of a configuration or a status, as for a request of the userspace API
MAX_SHORT: Final = 1 << 16  # bytes of any other message
MAX_FDS: Final = 128  # of one message: for each worker a socket, or the sockets of a port
MAX_WAITING: Final = 1 << 20  # bytes that wait to be taken before `tell` drops messages

_HEADER: Final = Struct("!IBB")  # length of the body, kind, number of file descriptors
_CHUNK: Final = 1 << 16


class Kind(IntEnum):
    """What a message is. The answers come in the order of the questions."""

    # From control to a worker; BEGIN, CONFIGURE, DOWN, STATUS and PING are answered.
    BEGIN = 1
    """Its number, the settings, its TUN queue, and a socket to each other worker."""
    RESUME = 2
    """Sessions of the process before it (`Device.resume`)."""
    CONFIGURE = 3
    """A DeviceChange, perhaps with the sockets of a new port."""
    UP = 4
    """The sockets of the port: carry packets from now on."""
    DOWN = 5
    """Close the port, as when the link goes down."""
    ROUTES = 6
    """Links, addresses or routes have changed; with the interface's MTU."""
    HOSTS_FORGOTTEN = 7
    """The port's filter knows no hosts of peers any more."""
    STATUS = 8
    """The configuration and the counters are wanted."""
    PING = 9
    """An answer is wanted, whatever it is."""
    INITIATIONS = 10
    """When the last initiations of its peers were stamped, so that it refuses replays of them."""
    # From a worker to control.
    DONE = 16
    """The answer; to STATUS, with its text."""
    FAILED = 17
    """The answer of a worker that could not do it, with the reason."""
    EVENT = 18
    """Something has happened to a peer."""
    UNANSWERED = 19
    """An initiation to a peer had no answer."""
    HOSTS = 20
    """Peers are known at these hosts."""
    KEYS = 21
    """The label and the key of a handshake, for the key log."""
    LOG = 22
    """A line for the log."""


_LONG: Final = frozenset({Kind.RESUME, Kind.CONFIGURE, Kind.INITIATIONS, Kind.DONE})


class Message(NamedTuple):
    """A message that came. The descriptors are the receiver's to close."""

    kind: Kind
    body: bytes
    fds: list[int]

    def json(self) -> Any:
        """The body as JSON. Raises ControlError."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ControlError(f"{self.kind.name}: not JSON") from error


Body = bytes | str | dict[str, Any]


def encoded(body: Body) -> bytes:
    """A message's body as it is sent: a dictionary as JSON."""
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode(errors="backslashreplace")


class Channel:
    """One end of a channel, in the running loop. Nothing blocks."""

    def __init__(self, sock: socket.socket, *, takes_fds: bool) -> None:
        """Take over a connected stream socket. Without `takes_fds`, descriptors that come are discarded."""
        sock.setblocking(False)
        self._socket = sock
        self._takes_fds = takes_fds
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._fds: deque[int] = deque()
        self._sending: deque[tuple[memoryview, list[int]]] = deque()
        self._waiting = 0  # bytes of them
        self._readable: asyncio.Future[None] | None = None
        self.dropped: int = 0
        """Messages that `tell` dropped."""

    # Receiving.

    async def receive(self) -> Message | None:
        """The next message; None once the other end is closed, or has broken the rules above."""
        while self._socket.fileno() >= 0:
            needed = _HEADER.size
            if len(self._received) >= needed:
                length, kind, count = _HEADER.unpack_from(self._received)
                needed += length
                if kind not in _KINDS or length > (MAX_LONG if kind in _LONG else MAX_SHORT):
                    return None
                if count and not self._takes_fds:
                    return None
                if len(self._received) >= needed:
                    body = bytes(memoryview(self._received)[_HEADER.size : needed])
                    del self._received[:needed]
                    if len(self._fds) < count:  # the kernel could not install them all
                        return None
                    return Message(Kind(kind), body, [self._fds.popleft() for _ in range(count)])
            if not await self._read():
                return None
        return None

    async def _read(self) -> bool:
        """Read something; returns whether there will be more."""
        while True:
            try:
                data = self._receive()
            except BlockingIOError:
                self._readable = self._loop.create_future()
                self._loop.add_reader(self._socket.fileno(), _set, self._readable)
                try:
                    await self._readable
                finally:
                    if self._socket.fileno() >= 0:
                        self._loop.remove_reader(self._socket.fileno())
                    self._readable = None
                if self._socket.fileno() < 0:
                    return False
                continue
            except OSError:
                return False
            self._received += data
            return bool(data)

    def _receive(self) -> bytes:
        if not self._takes_fds:
            return self._socket.recv(_CHUNK)
        # Not socket.recv_fds: that of Python 3.11 takes flags and drops them.
        fds = array.array("i")
        room = socket.CMSG_LEN(MAX_FDS * fds.itemsize)
        data, ancillary, _, _ = self._socket.recvmsg(_CHUNK, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, rights in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
        self._fds.extend(fds)
        return data

    # Sending.

    def send(self, kind: Kind, body: Body = b"", fds: Sequence[int] = ()) -> None:
        """Send a message, now or when there is room. The descriptors stay the caller's. Does nothing once closed."""
        if self._socket.fileno() < 0:
            return
        data = encoded(body)
        rest = memoryview(_HEADER.pack(len(data), kind, len(fds)) + data)
        if not self._sending:
            try:
                rest, fds = rest[self._transmit(rest, fds) :], ()
            except BlockingIOError:
                pass
            except OSError:  # the other end is closed, as `receive` says
                return
            if not rest:
                return
            self._loop.add_writer(self._socket.fileno(), self._writable)
        self._sending.append((rest, [os.dup(fd) for fd in fds]))
        self._waiting += len(rest)

    def tell(self, kind: Kind, body: Body) -> None:
        """Send a message that may be lost: it is dropped, and counted, if the other end does not read."""
        if self._waiting < MAX_WAITING:
            self.send(kind, body)
        else:
            self.dropped += 1

    def _transmit(self, data: memoryview, fds: Sequence[int]) -> int:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        return self._socket.sendmsg([data], [rights] if fds else [])

    def _writable(self) -> None:
        while self._sending:
            data, fds = self._sending[0]
            try:
                sent = self._transmit(data, fds)
            except BlockingIOError:
                return
            except OSError:
                self._drop_waiting()
                break
            _close(fds)
            self._waiting -= sent
            if sent < len(data):
                self._sending[0] = (data[sent:], [])
            else:
                self._sending.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _drop_waiting(self) -> None:
        for _, fds in self._sending:
            _close(fds)
        self._sending.clear()
        self._waiting = 0

    def close(self) -> None:
        """Close this end: a `receive` that waits returns None. Closing twice is harmless."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._drop_waiting()
        _close(self._fds)
        self._fds.clear()
        self._socket.close()
        if self._readable is not None:
            _set(self._readable)


_KINDS: Final = frozenset(Kind)


def _set(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def _close(fds: Sequence[int] | deque[int]) -> None:
    for fd in fds:
        os.close(fd)
