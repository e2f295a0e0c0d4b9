"""Reading one UDP socket, whole bursts at a time; beside wireguard-go's receiveIP (conn/bind_std.go).

One recvmsg with UDP_GRO brings up to 64 datagrams of one sender. Whatever waits behind them and fits into slots of the
same size is read into the same buffer, so that the whole burst is opened and merged at once. A sender of many
connections merges only what one of them sends together, and the last of that is often short: the next read begins at
the next slot. What many peers send comes two or three datagrams at a time: where a queue is for peers' data alone, a
burst has the datagrams of all of them.
Control messages carry what no payload does: the local address that a datagram was sent to, so that the answer leaves
from there (the kernel's sticky source, its socket.c), and the ECN field (RFC 6040).
"""

from __future__ import annotations

import logging
import socket
import sys
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from struct import Struct
from time import monotonic
from typing import Any, Final

from wgpy.burst import Datagrams, ReadAhead, ViewCache
from wgpy.constants import INITIATION_SIZE, RESPONSE_SIZE, TRANSPORT_OVERHEAD
from wgpy.endpoint import Endpoint, SenderChange
from wgpy.net.binding import IP_PKTINFO
from wgpy.net.datagrams import Received

READ_SIZE: Final = 1 << 16  # bytes: the most that one read brings
GATHER_SIZE: Final = 2 * READ_SIZE  # bytes that are gathered before the last read
MAX_GATHERED: Final = GATHER_SIZE >> 6  # datagrams before that: the shortest with a packet in them has 64 bytes
HANDSHAKE_SIZES: Final = frozenset({INITIATION_SIZE, RESPONSE_SIZE})
MAX_HANDSHAKES: Final = 8  # handed over at once, so that data gets its turn soon
MAX_KEPT: Final = 1024  # lengths of lone datagrams
MAX_ORIGINS: Final = 256  # senders whose endpoints are remembered

_PKTINFO_V4: Final = Struct("=i4s4s")  # interface index, local address, destination in the header
_PKTINFO_V6: Final = Struct("=16si")  # local address, interface index
_INT: Final = Struct("=i")
_CONTROL_SPACE: Final = sum(map(socket.CMSG_SPACE, (_PKTINFO_V6.size, _INT.size, _INT.size)))
_SOL_UDP: Final = socket.SOL_UDP
_TRUNCATED: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)  # joining two flags takes as long as a read

_log = logging.getLogger(__name__)

_ControlMessage = tuple[int, int, bytes]
_Key = tuple[Any, tuple[_ControlMessage, ...]]  # the sender, and where it sent to


# What one recvmsg brought: its first byte in the buffer, the byte behind it, the size of the datagrams that GRO merged
# (0: it is one datagram), and what datagrams of one burst share. Making a NamedTuple takes a tenth of a read.
_Read = tuple[int, int, int, _Key]


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
        # What is gathered, and one more read. Of anonymous memory, pages that are never read into take no room.
        self._buffer = memoryview(mmap(-1, GATHER_SIZE + 2 * READ_SIZE, MAP_PRIVATE | MAP_ANONYMOUS))
        self._first = [self._buffer[:READ_SIZE]]
        self._cache = ViewCache(self._buffer)
        self._read_ahead = ReadAhead()
        self._mixes_senders = carries_data and not carries_handshakes  # else a flood from many hosts would be one burst
        self._size = 0  # bytes of the longest datagram of the last burst
        self._origins: dict[_Key, tuple[Endpoint, int]] = {}
        self._latest_key: _Key | None = None  # most datagrams come from where the last one came from
        self._latest_origin = Endpoint("", 0), 0
        self._alone: dict[int, Received] = {}  # of that sender, by the length of the datagram

    def take_count(self) -> int:
        """How many datagrams were handed over since this was last called, of a socket that carries handshakes."""
        count, self._count = self._count, 0
        return count

    def receive(self, *, under_load: bool = False) -> Received | None:
        """The next datagrams that may be handled together; None if nothing waits. `under_load` is passed on."""
        read, self.held = self.held or self._read(0), None
        if read is None:
            self.is_dry = True
            return None
        start, end, merged_size, key = read
        if start:  # a burst begins where the buffer does, of which views are at hand
            self._buffer[: end - start] = self._buffer[start:end]
            end -= start
        if key != self._latest_key:
            self._latest_key, self._latest_origin = key, self._origin(key)
            self._alone.clear()
        source, ecn = self._latest_origin
        if self._mixes_senders and not merged_size and not self._read_ahead.looks_for_more(monotonic()):
            received = self._alone.get(end)
            if received is None:
                if len(self._alone) >= MAX_KEPT:
                    self._alone.clear()
                datagrams = Datagrams(self._buffer[:end], end or 1, self._cache)
                received = self._alone[end] = Received(datagrams, source, ecn, is_alone=True)
            received.under_load = under_load
            return received
        size = merged_size or end or 1
        short: dict[int, int] = {}
        senders: list[SenderChange] = []
        is_alone = False
        if not self.carries_data and size in HANDSHAKE_SIZES:
            at_once = MAX_HANDSHAKES * size
            if end > at_once:
                self.held, end = (at_once, end, size, key), at_once
        elif merged_size or self._mixes_senders or self._read_ahead.looks_for_more(monotonic()):
            if not merged_size and self._mixes_senders:
                size = max(size, self._size)
            before, end = end, self._gather(end, size, key, short, senders)
            is_alone = end == before and not merged_size and not self.held
            self._read_ahead.looked(was_alone=is_alone)
        else:
            is_alone = True
        datagrams = Datagrams(self._buffer[:end], size, self._cache, short)
        if self.carries_handshakes:
            self._count += len(datagrams)
        return Received(datagrams, source, ecn, under_load, is_alone, senders)

    def _origin(self, key: _Key) -> tuple[Endpoint, int]:
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= MAX_ORIGINS:
                self._origins.clear()
            origin = self._origins[key] = _origin(*key)
        return origin

    def _gather(self, end: int, size: int, key: _Key, short: dict[int, int], senders: list[SenderChange]) -> int:
        """Read on while what comes belongs to the burst of `size` bytes a slot; returns the burst's end.

        Datagrams that are shorter than that, as the last of what was merged often is, are noted in `short`, and those
        of another sender than the last in `senders`. The first read that does not belong to it is held for the next
        `receive`.
        """
        full = min(GATHER_SIZE, MAX_GATHERED * size)
        longest = min(end, size)
        while end < full:
            number, tail = divmod(end, size)
            if tail and tail < TRANSPORT_OVERHEAD:
                break
            more = self._read(end - tail + size if tail else end)
            if more is None:
                break
            start, then, merged_size, its_key = more
            fits = merged_size == size or (not merged_size and 0 < then - start <= size)
            if not fits or (its_key != key and not self._mixes_senders):
                self.held = more
                break
            if tail:
                short[number] = tail
            if its_key != key:
                key = its_key
                senders.append((start // size, *self._origin(key)))
            longest = max(longest, merged_size or then - start)
            end = then
        self._size = longest
        return end

    def _read(self, at: int) -> _Read | None:
        parts = [self._buffer[at : at + READ_SIZE]] if at else self._first
        while True:
            try:
                size, control, flags, address = self.socket.recvmsg_into(parts, _CONTROL_SPACE)
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
            merged_size = 0
            if control and control[0][0] == _SOL_UDP:  # UDP_GRO, which the kernel writes first
                (merged_size,) = _INT.unpack(control.pop(0)[2])
            return at, at + size, merged_size, (address, tuple(control))


def _origin(address: tuple[Any, ...], control: tuple[_ControlMessage, ...]) -> tuple[Endpoint, int]:
    """The sender and our address, and the ECN field."""
    source, ifindex, ecn = b"", 0, 0
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            ifindex, source, _ = _PKTINFO_V4.unpack(data)
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            source, ifindex = _PKTINFO_V6.unpack(data)
        else:  # IP_TOS in one byte, IPV6_TCLASS in an int
            ecn = int.from_bytes(data, sys.byteorder) & 3
    scope_id = address[3] if len(address) == 4 else 0
    return Endpoint(address[0], address[1], scope_id, source, ifindex), ecn
