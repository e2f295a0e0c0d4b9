"""What one worker hands to another: packets for a peer that the other serves, and initiations that such a peer sent.

Each two workers are connected by a pair of sockets whose messages are whole bursts, in order. A full socket refuses a
message, which the sender then counts as dropped (`DropReason.HANDOVER_FULL`), as a full queue of an interface would.
Initiations have some room that bursts cannot take: otherwise a flood of packets to one peer would keep the others of
its worker from agreeing on new keys.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from struct import Struct
from typing import Final

from wgpy.burst import Burst, ViewCache
from wgpy.device.effects import ForeignInitiation, Handover
from wgpy.endpoint import Endpoint
from wgpy.net.binding import SO_SNDBUFFORCE
from wgpy.noise.handshake import PACKED_SIZE, InitiationReceived
from wgpy.tun.splitting import SLOTS_SIZE

BUFFER_SIZE: Final = 2 << 20  # bytes in the kernel for each direction, which it doubles: 60 long super-packets
FOR_INITIATIONS: Final = 1 << 18  # bytes beside them, likewise: some hundred

_BURST, _INITIATION = range(2)
_HEADER: Final = Struct("<BxHIII")  # the kind; of a burst: packets, stride, length of the first and of the last
_SOURCE: Final = Struct("<46pHI17pI")  # an Endpoint

_log = logging.getLogger(__name__)


def connect_workers(count: int) -> list[dict[int, socket.socket]]:
    """For each of `count` workers, its sockets to the others, by their numbers."""
    links: list[dict[int, socket.socket]] = [{} for _ in range(count)]
    for one in range(count):
        for other in range(one):
            links[one][other], links[other][one] = pair()
    return links


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for `HandoverMesh`."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    for end in ends:
        _set_buffer(end, BUFFER_SIZE)
    return ends


def _set_buffer(sock: socket.socket, size: int) -> None:
    for option in (socket.SO_SNDBUF, SO_SNDBUFFORCE):  # the second fails without CAP_NET_ADMIN
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, size)


class HandoverMesh:
    """The sockets that lead from worker `number` to the others, by their numbers. It takes the sockets over."""

    def __init__(self, number: int, sockets: Mapping[int, socket.socket]) -> None:
        self._number = number
        self._sockets = dict(sockets)
        self._header = memoryview(bytearray(_HEADER.size))
        self._buffer = memoryview(bytearray(SLOTS_SIZE))
        self._cache = ViewCache(self._buffer)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start_reading(self, loop: asyncio.AbstractEventLoop, callback: Callable[[socket.socket], None]) -> None:
        """Have the loop call `callback(sock)` while there is something to `receive` from that socket."""
        self._loop = loop
        for sock in self._sockets.values():
            loop.add_reader(sock.fileno(), callback, sock)

    def stop_reading(self) -> None:
        """Call `callback` no more; what is handed over waits in the sockets."""
        if self._loop is not None:
            for sock in self._sockets.values():
                self._loop.remove_reader(sock.fileno())
            self._loop = None

    def send(self, handover: Handover) -> bool:
        """Hand something over; whether the other worker's socket took it."""
        what, sock = handover.what, self._sockets[handover.worker]
        if isinstance(what, Burst):
            lengths = what.lengths
            header = _HEADER.pack(_BURST, len(lengths), what.stride, lengths[0], lengths[-1])
            body: bytes | memoryview = what.view
        else:
            host, port, scope_id, source, ifindex = what.source
            header = _HEADER.pack(_INITIATION, 0, 0, 0, 0)
            body = what.initiation.pack() + _SOURCE.pack(host.encode(), port, scope_id, source, ifindex)
        try:
            sock.sendmsg([header, body])
        except BlockingIOError:
            return not isinstance(what, Burst) and _send_beside_bursts(sock, header + bytes(body))
        except OSError as error:
            _log.debug("handing over to worker %d failed: %s", handover.worker, error)
            return False
        return True

    def receive(self, sock: socket.socket) -> Handover | None:
        """What another worker handed to this one; None if nothing waits. A burst is valid until the next call."""
        try:
            size, _, _, _ = sock.recvmsg_into([self._header, self._buffer])
        except BlockingIOError:
            return None
        except OSError as error:
            _log.debug("what another worker handed over cannot be read: %s", error)
            size = 0
        if not size:  # nobody holds the other end any more
            if self._loop is not None:
                self._loop.remove_reader(sock.fileno())
            return None
        kind, count, stride, length, last = _HEADER.unpack(self._header)
        body = self._buffer[: size - _HEADER.size]
        if kind == _BURST:
            return Handover(self._number, Burst(body, stride, [*[length] * (count - 1), last], self._cache))
        initiation = InitiationReceived.unpack(body[:PACKED_SIZE])
        host, port, scope_id, source, ifindex = _SOURCE.unpack(body[PACKED_SIZE:])
        endpoint = Endpoint(host.decode(), port, scope_id, source, ifindex)
        return Handover(self._number, ForeignInitiation(initiation, endpoint))

    def close(self) -> None:
        """Close the sockets."""
        self.stop_reading()
        for sock in self._sockets.values():
            sock.close()


def _send_beside_bursts(sock: socket.socket, message: bytes) -> bool:
    """Send an initiation though bursts have filled the socket; whether it was taken."""
    _set_buffer(sock, BUFFER_SIZE + FOR_INITIATIONS)
    try:
        sock.send(message)
    except OSError:
        return False
    finally:
        _set_buffer(sock, BUFFER_SIZE)
    return True
