"""The UDP port: sockets for what comes (`binding`), and whole bursts per system call.

Outbound, one `sendmsg` with UDP_SEGMENT carries up to 64 datagrams; inbound, one `recvmsg` with UDP_GRO brings as many,
and what else waits and is like it is read after it, so that all of a burst is opened and merged at once.
Control messages carry what no payload does: the local address a datagram came to, so that the answer leaves from there
(the kernel's sticky source, its socket.c), and the ECN field (RFC 6040). Every offload falls back at run time.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from wgpy.burst import Datagrams, ReadAhead, ViewCache
from wgpy.config.values import ALL_OFFLOADS, Offloads
from wgpy.constants import INITIATION_SIZE, MAX_DATAGRAM, MAX_SEGMENTS, MESSAGE_COOKIE_REPLY, RESPONSE_SIZE
from wgpy.device.load import LoadMeter
from wgpy.endpoint import Endpoint
from wgpy.errors import SocketError
from wgpy.net.binding import BUFFER_SIZE, IP_PKTINFO, QUEUE_SIZE, UDP_GRO, bind_port, set_options
from wgpy.net.queues import KnownHosts
from wgpy.net.turns import SLICE, Turns
from wgpy.system import kernel
from wgpy.system.refusals import explain, net_admin

UDP_SEGMENT: Final = 103  # Linux constants that the socket module of Python 3.11 lacks
SO_MEMINFO: Final = 55

READ_SIZE: Final = 1 << 16  # bytes: the most that one read brings, and as much as is gathered before the last
MAX_GATHERED: Final = READ_SIZE >> 6  # datagrams before the last read: the shortest with a packet in them has 64 bytes
MAX_PAYLOAD: Final = {socket.AF_INET: MAX_DATAGRAM, socket.AF_INET6: MAX_DATAGRAM + 20}
HANDSHAKE_SIZES: Final = frozenset({INITIATION_SIZE, RESPONSE_SIZE})
MAX_HANDSHAKES: Final = 8  # at once, so that data is soon looked for again
MESSAGE_ROOM: Final = 768  # bytes that a handshake message takes of a socket's buffer, at the least
SORT_EVERY: Final = 0.05  # seconds at most: to sort by hundreds of hosts takes a millisecond
REFUSAL_LASTS: Final = 600.0  # seconds: as long as the kernel keeps a path's MTU (net.ipv4.route.mtu_expires)
MAX_REMEMBERED: Final = 1024  # routes, and destinations that refuse segmentation

# Errors that say the remembered local address is gone or no longer leads there.
_SOURCE_ERRORS: Final = frozenset(
    {errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENODEV, errno.ENETDOWN}
)

_NO_SOURCE_V4: Final = bytes(4)
_PKTINFO_V4: Final = struct.Struct("=i4s4s")  # ifindex, local address, header's destination
_PKTINFO_V6: Final = struct.Struct("=16si")  # local address, ifindex
_INT: Final = struct.Struct("=i")
_U32: Final = struct.Struct("=I")
_U16: Final = struct.Struct("=H")
_MEMINFO: Final = struct.Struct("=II")  # linux/sock_diag.h: SK_MEMINFO_RMEM_ALLOC, SK_MEMINFO_RCVBUF
_COOKIE_REPLY: Final = bytes((MESSAGE_COOKIE_REPLY,))
_TRUNCATED: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)  # to join two flags takes as long as to read
_CONTROL_SPACE: Final = sum(map(socket.CMSG_SPACE, (_PKTINFO_V6.size, _INT.size, _INT.size)))

_log = logging.getLogger(__name__)

_ControlMessage = tuple[int, int, bytes]


class Received(NamedTuple):
    """What was read together: datagrams of one sender, and the ECN field (0 to 3) they share.

    `datagrams` lies in a buffer that the next `receive` overwrites. `under_load`: so many handshakes wait
    that cookies are to be asked for.
    """

    datagrams: Datagrams
    source: Endpoint
    ecn: int
    under_load: bool = False


class SendResult(NamedTuple):
    """How a send went; the default is that everything was sent.

    `remaining` is what to send again once the socket is writable. `refused` and `refused_bytes` count datagrams that
    the system would not take, and the bytes in them. `source_stale`: the endpoint's local address no longer works and
    the route's choice does, so forget it.
    """

    remaining: Datagrams | None = None
    refused: int = 0
    refused_bytes: int = 0
    source_stale: bool = False


class _Read(NamedTuple):
    """What one recvmsg brought: where in the buffer it lies, and by what it is told from what belongs elsewhere."""

    start: int
    end: int
    key: tuple[Any, list[_ControlMessage]]


class _Route(NamedTuple):
    """What sendmsg needs for one endpoint and traffic class."""

    port: _Port
    address: tuple[Any, ...]
    control: list[_ControlMessage]


class _Port:
    """One socket and what was learnt about its offloads."""

    def __init__(self, sock: socket.socket, *, gso: bool) -> None:
        self.socket = sock
        self.takes_data = False
        self.turns_of_data = 0  # when it was last asked whether it is its turn
        self.is_dry = False
        self.calls = 0
        self.count = 0  # datagrams read since it was last asked
        self.known_hosts: KnownHosts | None = None
        self.is_to_sort = False
        self.sorted_at = 0.0
        self.max_payload = MAX_PAYLOAD[socket.AddressFamily(sock.family)]
        self.segmentation = gso and _has_segmentation(sock)
        self.refused: dict[str, int] = {}  # host -> the smallest segment above its route's MTU
        self.refused_until = 0.0
        self.buffer = memoryview(bytearray(3 * READ_SIZE))  # a held read, what is gathered after it, and one more
        self.cache = ViewCache(self.buffer)
        self.read_ahead = ReadAhead()
        self.held: _Read | None = None
        self.last_key: tuple[Any, list[_ControlMessage]] | None = None
        self.last_seen = Endpoint("", 0), 0, 0

    def waiting(self) -> tuple[float, float]:
        """How many handshake messages may wait in the socket, and how many can; none where the system does not tell."""
        try:
            used, room = _MEMINFO.unpack(self.socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size))
        except OSError:
            return 0.0, 1.0
        return used / MESSAGE_ROOM, room / MESSAGE_ROOM

    def take_count(self) -> int:
        count, self.count = self.count, 0
        return count

    def segments(self, count: int, size: int, host: str) -> int:
        """How many of `count` datagrams, two or more, the next sendmsg takes: equal shares, not 44 and then 2."""
        if self.refused and time.monotonic() > self.refused_until:
            self.refused.clear()
        if not self.segmentation or size >= self.refused.get(host, size + 1):
            return 1
        limit = min(MAX_SEGMENTS, self.max_payload // size) or 1
        calls = -(-count // limit)
        return -(-count // calls)

    def refuse(self, number: int, size: int, host: str) -> bool:
        """Whether a segmented send failed because it was segmented: then it will not be tried that way again.

        EIO: the outgoing device has no checksum offload (kernels before 6.11). EMSGSIZE, or EINVAL on older kernels: a
        segment exceeds the route's MTU; as a plain datagram it is fragmented instead.
        """
        if number == errno.EIO:
            self.segmentation = False
            _log.info("UDP segmentation offload does not work here and is now off (%s)", os.strerror(number))
        elif number in (errno.EMSGSIZE, errno.EINVAL):
            if not self.refused:
                self.refused_until = time.monotonic() + REFUSAL_LASTS
            _remember(self.refused, host, min(size, self.refused.get(host, size)))
            _log.debug("datagrams of %d bytes exceed the MTU of the route to %s: sent one at a time", size, host)
        else:
            return False
        return True


class UdpSockets:
    """The sockets of one port. Not thread-safe; nothing blocks.

    `receive_failures` counts reads that came truncated.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        *,
        offloads: Offloads = ALL_OFFLOADS,
        release: str | None = None,
    ) -> None:
        """Take over sockets that are bound to one port; a family's last one takes the data, and sends.

        `release` is the kernel's: this one's, unless told otherwise. Raises SocketError for none.
        """
        if not sockets:
            raise SocketError("neither IPv4 nor IPv6 sockets are available on this system")
        offloads &= kernel.permitted()
        mangled = kernel.mangles_udp_gso(release or kernel.release())
        if mangled or not offloads.udp_gso:
            reason = "this kernel may mangle it" if mangled else "switched off"
            _log.info("datagrams leave one at a time, without UDP segmentation offload: %s", reason)
        gso = offloads.udp_gso and not mangled
        self._ports = {sock: _Port(sock, gso=gso) for sock in sockets}
        self._by_family = {socket.AddressFamily(sock.family): port for sock, port in self._ports.items()}
        self._routes: dict[tuple[Endpoint, int], _Route] = {}
        self.port: int = sockets[0].getsockname()[1]
        self.receive_failures = 0
        self._turns = Turns()
        self._load = LoadMeter()
        self._is_loaded = False
        self._loop: asyncio.AbstractEventLoop | None = None  # that reads
        for port in self._by_family.values():
            port.takes_data = True
            if len(sockets) > len(self._by_family):
                port.known_hosts = KnownHosts(port.socket)
        for sock, port in self._ports.items():
            set_options(sock, BUFFER_SIZE if port.takes_data else QUEUE_SIZE, gro=offloads.udp_gro)

    @classmethod
    def open(cls, port: int = 0, *, fwmark: int = 0, offloads: Offloads = ALL_OFFLOADS) -> UdpSockets:
        """Bind `port` (0: one that is free in both families) on all addresses; one family may be missing.

        Raises SocketError: port in use, privileged port, no family at all, or fwmark without CAP_NET_ADMIN.
        """
        udp = cls(bind_port(port), offloads=offloads)
        try:
            if fwmark:
                udp.set_fwmark(fwmark)
        except SocketError:
            udp.close()
            raise
        return udp

    @property
    def sockets(self) -> list[socket.socket]:
        return list(self._ports)

    def socket_for(self, endpoint: Endpoint) -> socket.socket | None:
        """The socket that sends to `endpoint`: what to wait on when some remains. None: the family is missing."""
        port = self._by_family.get(_family(endpoint))
        return port.socket if port else None

    def set_fwmark(self, mark: int) -> None:
        """Mark everything sent from now on (0 for none). Raises SocketError."""
        for port in self._ports.values():
            try:
                port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _U32.pack(mark))
            except PermissionError as error:
                raise SocketError(f"cannot set fwmark: {explain(net_admin())}, or leave FwMark out") from error
            except OSError as error:
                raise SocketError(f"cannot set fwmark {mark}: {error.strerror}") from error
        self.forget_refusals()

    def forget_refusals(self) -> None:
        """Other routes apply now: what was too long for the old ones may be segmented again."""
        for port in self._ports.values():
            port.refused.clear()

    def start_reading(self, loop: asyncio.AbstractEventLoop, readable: Callable[[socket.socket], bool]) -> None:
        """Have `readable(sock)` called whenever a socket may have something for `receive`.

        It tells whether what it received was worth it. The other queues are read when no data waits (`turns`).
        """
        self._loop = loop
        for sock, port in self._ports.items():
            loop.add_reader(sock.fileno(), self._ready, port, readable)
            self._sort(port)

    def _ready(self, port: _Port, readable: Callable[[socket.socket], bool]) -> None:
        if self._loop is None:
            return
        port.calls += 1
        turns, began = self._turns, time.monotonic()
        data_waits = port.turns_of_data != turns.data
        port.turns_of_data = turns.data
        if port.takes_data:
            has_handshakes = port.known_hosts is None  # too: it is the only socket of its family
            waiting, capacity = port.waiting() if has_handshakes else (0.0, 1.0)
            self._is_loaded = self._load.is_present(waiting, capacity, began)
            turns.data += readable(port.socket)
            count = port.take_count()
            if has_handshakes:
                self._load.handled(count, time.monotonic() - began)
        elif not data_waits or turns.is_strangers(began):
            self._is_loaded = self._load.is_present(*port.waiting(), began)
            was_worth_it, port.is_dry, now = False, False, began
            while self._loop and not port.is_dry and now < began + SLICE:
                was_worth_it |= readable(port.socket)
                now = time.monotonic()
            self._load.handled(port.take_count(), now - began)
            if data_waits and not was_worth_it:
                turns.spend(now - began)
        if port.held and self._loop:  # of which the socket knows nothing
            again = partial(self._call_again, port, port.calls, readable)
            if port.takes_data:
                self._loop.call_soon(again)
            else:  # in the turn of the loop after the next, so that data has its turn in between
                self._loop.call_soon(self._loop.call_soon, again)

    def _call_again(self, port: _Port, calls: int, readable: Callable[[socket.socket], bool]) -> None:
        if port.calls == calls:  # the socket has not called meanwhile
            self._ready(port, readable)

    def stop_reading(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = None
        for sock in self._ports:
            loop.remove_reader(sock.fileno())

    def close(self) -> None:
        """Close the sockets; stop reading first."""
        for sock in self._ports:
            sock.close()

    def receive(self, sock: socket.socket) -> Received | None:
        """What waits in one of `sockets` and may be handled together. None: nothing is there now."""
        port = self._ports[sock]
        read, port.held = port.held or self._read(port, 0), None
        if read is None:
            port.read_ahead.ran_dry()
            port.is_dry = True
            return None
        start, end, key = read
        if key != port.last_key:
            port.last_seen = _interpret(*key)
            port.last_key = key
        source, ecn, merged_size = port.last_seen
        size = merged_size or max(1, end - start)
        if size in HANDSHAKE_SIZES and not port.takes_data:
            at_once = start + MAX_HANDSHAKES * size
            if end > at_once:
                port.held, end = _Read(at_once, end, key), at_once
        elif port.read_ahead.looks_for_more():
            end = self._gather(port, read, size, is_merged=merged_size > 0)
        datagrams = Datagrams(port.buffer[start:end], size, None if start else port.cache)
        port.count += len(datagrams)
        return Received(datagrams, source, ecn, self._is_loaded)

    def _gather(self, port: _Port, first: _Read, size: int, *, is_merged: bool) -> int:
        """Read on while what comes is alike and the last datagram was not short; returns where that ends."""
        start, end, key = first
        full = start + min(READ_SIZE, MAX_GATHERED * size)
        while (end - start) % size == 0 and start < end < full and end + READ_SIZE <= len(port.buffer):
            more = self._read(port, end)
            if more is None:
                break
            if more.key != key or not (is_merged or 0 < more.end - end <= size):
                port.held = more
                break
            end = more.end
        return end

    def _read(self, port: _Port, at: int) -> _Read | None:
        while True:
            try:
                size, control, flags, address = port.socket.recvmsg_into(
                    [port.buffer[at : at + READ_SIZE]], _CONTROL_SPACE
                )
            except BlockingIOError:
                return None
            except ConnectionError:  # an ICMP error for something sent earlier
                continue
            except OSError as error:
                _log.debug("receiving failed: %s", error)
                return None
            if flags & _TRUNCATED:
                self.receive_failures += 1
                continue
            return _Read(at, at + size, (address, control))

    def send(self, datagrams: Datagrams, endpoint: Endpoint, traffic_class: int) -> SendResult:
        """Send from the endpoint's `source`, or from the route's choice if that no longer works.

        `traffic_class` is the IPv4 TOS or IPv6 traffic class byte. Never raises for what the network does: the result
        tells what the system refused.
        """
        route = self._routes.get((endpoint, traffic_class))
        if route is None:
            route = self._route(endpoint, traffic_class)
            if route is None:
                return SendResult(refused=len(datagrams), refused_bytes=len(datagrams.view))
            if datagrams.view[:1] != _COOKIE_REPLY:  # which anybody gets, once
                self._meet(route.port, endpoint.address_bytes[:8])
                _remember(self._routes, (endpoint, traffic_class), route)
        else:
            self._turns.data += 1
        port = route.port
        view, size, host = datagrams.view, datagrams.segment_size, endpoint.host
        offset, end = 0, len(view)
        refused, refused_bytes, stale = 0, 0, False
        while offset < end:
            count = port.segments(-(-(end - offset) // size), size, host) if end - offset > size else 1
            control = route.control if count == 1 else [*route.control, (socket.SOL_UDP, UDP_SEGMENT, _U16.pack(size))]
            part = view[offset : offset + count * size]
            try:
                port.socket.sendmsg([part], control, 0, route.address)
            except BlockingIOError:
                return SendResult(Datagrams(view[offset:], size), refused, refused_bytes, stale)
            except OSError as error:
                number = error.errno or 0
                if endpoint.source and number in _SOURCE_ERRORS:
                    endpoint, stale = endpoint.without_source(), True
                    route = self._route(endpoint, traffic_class) or route
                    continue
                if count > 1 and port.refuse(number, size, host):
                    continue
                _log.debug("sending to %s failed: %s", endpoint, error)
                refused += count
                refused_bytes += len(part)
            offset += count * size
        if not refused and not stale:
            return _SENT
        return SendResult(None, refused, refused_bytes, stale and not refused)

    def _route(self, endpoint: Endpoint, traffic_class: int) -> _Route | None:
        port = self._by_family.get(_family(endpoint))
        if port is None:
            return None
        control: list[_ControlMessage] = []
        address: tuple[Any, ...] = (endpoint.host, endpoint.port)
        # The source's interface is left out, so that a better route may take over; scoped addresses need theirs.
        if endpoint.is_ipv6:
            address = (*address, 0, endpoint.scope_id)
            if endpoint.source:
                packed = _PKTINFO_V6.pack(endpoint.source, endpoint.scope_id)
                control.append((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, packed))
            if traffic_class:
                control.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _INT.pack(traffic_class)))
        else:
            if endpoint.source:
                packed = _PKTINFO_V4.pack(0, endpoint.source, _NO_SOURCE_V4)
                control.append((socket.IPPROTO_IP, IP_PKTINFO, packed))
            if traffic_class:
                control.append((socket.IPPROTO_IP, socket.IP_TOS, _INT.pack(traffic_class)))
        return _Route(port, address, control)

    def _meet(self, port: _Port, host: bytes) -> None:
        """A peer is at `host`: what it sends is not to wait among what strangers do."""
        if port.known_hosts is None or host in port.known_hosts:
            return
        now = time.monotonic()
        if port.known_hosts.meet(host, now):
            self._routes.clear()
        if self._loop is not None and not port.is_to_sort:
            port.is_to_sort = True
            self._loop.call_later(max(0.0, port.sorted_at + SORT_EVERY - now), self._sort, port)

    def _sort(self, port: _Port) -> None:
        port.is_to_sort = False
        if port.known_hosts is not None and self._loop is not None:  # otherwise the socket may be closed
            port.sorted_at = time.monotonic()
            with suppress(OSError):  # no memory for the filter: the last one stays
                port.known_hosts.sort()


_SENT: Final = SendResult()


def _remember(memory: dict[Any, Any], key: object, value: object) -> None:
    """Store, forgetting everything when full: bounded, and dearer only for whoever fills it."""
    if len(memory) >= MAX_REMEMBERED:
        memory.clear()
    memory[key] = value


def _family(endpoint: Endpoint) -> socket.AddressFamily:
    return socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET


def _interpret(address: tuple[Any, ...], control: list[_ControlMessage]) -> tuple[Endpoint, int, int]:
    """Who sent it and to which of our addresses, the ECN field, and the size of GRO's segments (0: not merged)."""
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


def _has_segmentation(sock: socket.socket) -> bool:
    try:
        sock.getsockopt(socket.SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True
