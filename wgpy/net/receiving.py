"""Reading one UDP socket, whole bursts at a time; beside wireguard-go's receiveIP (conn/bind_std.go).

One recvmsg with UDP_GRO brings up to 64 datagrams of one sender. Whatever waits behind them and belongs with them is
read into the same buffer, so that the whole burst is opened and merged at once. Control messages carry what no payload
does: the local address that a datagram was sent to, so that the answer leaves from there (the kernel's sticky source,
its socket.c), and the ECN field (RFC 6040).
"""

from __future__ import annotations

import logging
import socket
import sys
from struct import Struct
from typing import Any, Final, NamedTuple

from wgpy.burst import Datagrams, ReadAhead, ViewCache
from wgpy.constants import INITIATION_SIZE, RESPONSE_SIZE
from wgpy.endpoint import Endpoint
from wgpy.net.binding import IP_PKTINFO, UDP_GRO
from wgpy.net.datagrams import Received

READ_SIZE: Final = 1 << 16  # bytes: the most that one read brings, and as much as is gathered before the last read
MAX_GATHERED: Final = READ_SIZE >> 6  # datagrams before the last read: the shortest with a packet in them has 64 bytes
HANDSHAKE_SIZES: Final = frozenset({INITIATION_SIZE, RESPONSE_SIZE})
MAX_HANDSHAKES: Final = 8  # handed over at once, so that data gets its turn soon

_PKTINFO_V4: Final = Struct("=i4s4s")  # interface index, local address, destination in the header
_PKTINFO_V6: Final = Struct("=16si")  # local address, interface index
_INT_SIZE: Final = 4
_CONTROL_SPACE: Final = sum(map(socket.CMSG_SPACE, (_PKTINFO_V6.size, _INT_SIZE, _INT_SIZE)))
_TRUNCATED: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)  # joining two flags takes as long as a read

_log = logging.getLogger(__name__)

_ControlMessage = tuple[int, int, bytes]


class _Read(NamedTuple):
    """What one recvmsg brought: its place in the buffer, and the key that datagrams of one burst share."""

    start: int
    end: int
    key: tuple[Any, list[_ControlMessage]]


class Reader:
    """Reads one socket. A socket carries data, handshake messages, or both if it is the only one of its family."""

    def __init__(self, sock: socket.socket, *, carries_data: bool, carries_handshakes: bool) -> None:
        self.socket = sock
        self.carries_data = carries_data
        self.carries_handshakes = carries_handshakes
        self.held: _Read | None = None  # read already, but for the next `receive`: the socket knows nothing of it
        self.is_dry: bool = False  # the last `receive` found nothing
        self.truncated: int = 0  # datagrams that were longer than a read, and dropped
        self._count = 0
        self._buffer = memoryview(bytearray(3 * READ_SIZE))  # a held read, what is gathered after it, and one more
        self._cache = ViewCache(self._buffer)
        self._read_ahead = ReadAhead()
        self._last_key: tuple[Any, list[_ControlMessage]] | None = None
        self._last_origin = Endpoint("", 0), 0, 0

    def take_count(self) -> int:
        """How many datagrams were handed over since this was last called."""
        count, self._count = self._count, 0
        return count

    def receive(self, *, under_load: bool = False) -> Received | None:
        """The next datagrams that may be handled together; None if nothing waits. `under_load` is passed on."""
        read, self.held = self.held or self._read(0), None
        if read is None:
            self._read_ahead.ran_dry()
            self.is_dry = True
            return None
        start, end, key = read
        if key != self._last_key:
            self._last_origin = _origin(*key)
            self._last_key = key
        source, ecn, merged_size = self._last_origin
        size = merged_size or max(1, end - start)
        if size in HANDSHAKE_SIZES and not self.carries_data:
            at_once = start + MAX_HANDSHAKES * size
            if end > at_once:
                self.held, end = _Read(at_once, end, key), at_once
        elif self._read_ahead.looks_for_more():
            end = self._gather(read, size, is_merged=merged_size > 0)
        datagrams = Datagrams(self._buffer[start:end], size, None if start else self._cache)
        self._count += len(datagrams)
        return Received(datagrams, source, ecn, under_load)

    def _gather(self, first: _Read, size: int, *, is_merged: bool) -> int:
        """Read on while what comes belongs to the burst and the last datagram was not short; returns the burst's end.

        The first read that does not belong to it is held for the next `receive`.
        """
        start, end, key = first
        full = start + min(READ_SIZE, MAX_GATHERED * size)
        while (end - start) % size == 0 and start < end < full and end + READ_SIZE <= len(self._buffer):
            more = self._read(end)
            if more is None:
                break
            if more.key != key or not (is_merged or 0 < more.end - end <= size):
                self.held = more
                break
            end = more.end
        return end

    def _read(self, at: int) -> _Read | None:
        while True:
            try:
                size, control, flags, address = self.socket.recvmsg_into(
                    [self._buffer[at : at + READ_SIZE]], _CONTROL_SPACE
                )
            except BlockingIOError:
                return None
            except ConnectionError:  # an ICMP error about something that was sent earlier
                continue
            except OSError as error:
                _log.debug("receiving failed: %s", error)
                return None
            if flags & _TRUNCATED:
                self.truncated += 1
                continue
            return _Read(at, at + size, (address, control))


def _origin(address: tuple[Any, ...], control: list[_ControlMessage]) -> tuple[Endpoint, int, int]:
    """The sender and our address, the ECN field, and the size of the segments that GRO merged (0: it merged none)."""
    source, ifindex, ecn, segment_size = b"", 0, 0, 0
    for level, kind, data in control:
        if level == socket.SOL_UDP and kind == UDP_GRO:
            segment_size = int.from_bytes(data, sys.byteorder)
        elif level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            ifindex, source, _ = _PKTINFO_V4.unpack(data)
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            source, ifindex = _PKTINFO_V6.unpack(data)
        else:  # IP_TOS in one byte, IPV6_TCLASS in an int
            ecn = int.from_bytes(data, sys.byteorder) & 3
    scope_id = address[3] if len(address) == 4 else 0
    return Endpoint(address[0], address[1], scope_id, source, ifindex), ecn, segment_size
