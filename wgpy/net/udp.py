"""The UDP port of a tunnel: its sockets (`binding`), and what is read from them and sent by them.

`receiving` reads bursts from one socket, `schedule` decides which socket is read when, `sending` sends bursts, and
`queues` has the kernel sort datagrams into the sockets by whether a peer is known at their source. This module puts
them together. The kernel's file of the same job is socket.c, wireguard-go's is conn/bind_std.go.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from wgpy.burst import Datagrams
from wgpy.config.values import ALL_OFFLOADS, Offloads
from wgpy.constants import MESSAGE_COOKIE_REPLY
from wgpy.endpoint import Endpoint
from wgpy.errors import SocketError
from wgpy.net.binding import BUFFER_SIZE, QUEUE_SIZE, bind_port, set_mark, set_options
from wgpy.net.datagrams import Received, SendResult
from wgpy.net.queues import KnownHosts, ReportedHosts
from wgpy.net.receiving import Reader
from wgpy.net.schedule import Schedule
from wgpy.net.sending import Route, Sender
from wgpy.system import kernel

MAX_ROUTES: Final = 1024  # remembered; when there are more, all are forgotten

_COOKIE_REPLY: Final = bytes((MESSAGE_COOKIE_REPLY,))

_log = logging.getLogger(__name__)


class _Family(NamedTuple):
    """What belongs to one address family: the socket that sends, and the hosts that its filter knows, if it has one."""

    sender: Sender
    known_hosts: KnownHosts | ReportedHosts | None


class UdpSockets:
    """The sockets of one port. Not thread-safe; nothing blocks."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        *,
        offloads: Offloads = ALL_OFFLOADS,
        release: str | None = None,
        report_hosts: Callable[[list[bytes]], None] | None = None,
    ) -> None:
        """Take over sockets that are bound to one port. The last of each family receives data, and sends.

        `release` is the kernel's, by default this one's. `report_hosts`, if given, is called with hosts that the
        port's filter should know, which then belongs to somebody else: each an IPv4 address, or the /64 of an IPv6
        address, in 4 or 8 bytes. Raises SocketError if there are no sockets.
        """
        if not sockets:
            raise SocketError("neither IPv4 nor IPv6 sockets are available on this system")
        offloads &= kernel.permitted()
        mangled = kernel.mangles_udp_gso(release or kernel.release())
        if mangled or not offloads.udp_gso:
            reason = "this kernel may mangle it" if mangled else "switched off"
            _log.info("datagrams leave one at a time, without UDP segmentation offload: %s", reason)
        last = {socket.AddressFamily(sock.family): sock for sock in sockets}
        are_sorted = len(sockets) > len(last)
        self._families = {}
        for family, sock in last.items():
            known_hosts: KnownHosts | ReportedHosts | None = None
            if are_sorted:
                known_hosts = KnownHosts(sock) if report_hosts is None else ReportedHosts(report_hosts)
            self._families[family] = _Family(Sender(sock, gso=offloads.udp_gso and not mangled), known_hosts)
        self._readers = {}
        for sock in sockets:
            is_last = sock in last.values()
            self._readers[sock] = Reader(sock, carries_data=is_last, carries_handshakes=not is_last or not are_sorted)
            set_options(sock, BUFFER_SIZE if is_last else QUEUE_SIZE, gro=offloads.udp_gro)
        self._schedule = Schedule(list(self._readers.values()))
        self._routes: dict[tuple[Endpoint, int], Route] = {}
        self._latest: tuple[Endpoint | None, int, Route | None] = None, 0, None  # most sends go where the last went
        self.port: int = sockets[0].getsockname()[1]

    @classmethod
    def open(cls, port: int = 0, *, fwmark: int = 0, offloads: Offloads = ALL_OFFLOADS) -> UdpSockets:
        """Bind `port` (0: one that is free in both families) on all addresses; one family may be missing.

        Raises SocketError: port in use, privileged port, no family at all, or fwmark without CAP_NET_ADMIN.
        """
        udp = cls(*bind_port(port), offloads=offloads)
        try:
            if fwmark:
                udp.set_fwmark(fwmark)
        except SocketError:
            udp.close()
            raise
        return udp

    @property
    def sockets(self) -> list[socket.socket]:
        """All sockets of the port, those of a family in the order of its queues."""
        return list(self._readers)

    @property
    def receive_failures(self) -> int:
        """How many datagrams came truncated and were dropped."""
        return sum(reader.truncated for reader in self._readers.values())

    def socket_for(self, endpoint: Endpoint) -> socket.socket | None:
        """The socket that sends to `endpoint`, to wait on when something remains; None if the family is missing."""
        family = self._families.get(_family(endpoint))
        return family.sender.socket if family else None

    def set_fwmark(self, mark: int) -> None:
        """Mark everything sent from now on (0 for none). Raises SocketError."""
        for sock in self._readers:
            set_mark(sock, mark)
        self.forget_refusals()

    def forget_refusals(self) -> None:
        """Try again to segment what was too long for a route, because the routes have changed."""
        for family in self._families.values():
            family.sender.forget_refusals()

    def forget_hosts(self) -> None:
        """Report hosts again as something is sent to them, because the port's filter has forgotten them."""
        self._forget_routes()
        for family in self._families.values():
            if isinstance(family.known_hosts, ReportedHosts):
                family.known_hosts.forget(time.monotonic())

    def start_reading(self, loop: asyncio.AbstractEventLoop, readable: Callable[[socket.socket], bool]) -> None:
        """Have the loop call `readable(sock)` whenever `receive` may find something in a socket.

        It returns whether what it received was of use; `schedule` then knows whether data keeps coming.
        """
        self._schedule.start(loop, readable)
        for family in self._families.values():
            if family.known_hosts is not None:
                family.known_hosts.start_sorting(loop)

    def stop_reading(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call `readable` no more."""
        self._schedule.stop()
        for family in self._families.values():
            if family.known_hosts is not None:
                family.known_hosts.stop_sorting()

    def close(self) -> None:
        """Close the sockets; stop reading first."""
        for sock in self._readers:
            sock.close()

    def receive(self, sock: socket.socket) -> Received | None:
        """What waits in one of `sockets` and may be handled together; None if nothing waits."""
        return self._readers[sock].receive(under_load=self._schedule.under_load)

    def send(self, datagrams: Datagrams, endpoint: Endpoint, traffic_class: int) -> SendResult:
        """Send from the endpoint's `source`, or from the route's choice if that no longer works.

        `traffic_class` is the IPv4 TOS or IPv6 traffic class byte. Never raises for what the network does: the result
        tells what the system refused.
        """
        known, its_class, route = self._latest
        if endpoint is not known or traffic_class != its_class:
            route = self._routes.get((endpoint, traffic_class))
            self._latest = endpoint, traffic_class, route
        if route is not None:
            self._schedule.data_turns += 1
            return route.send(datagrams)
        family = self._families.get(_family(endpoint))
        if family is None:
            return SendResult(refused=len(datagrams), refused_bytes=len(datagrams.view))
        route = Route(family.sender, endpoint, traffic_class)
        if datagrams.view[:1] != _COOKIE_REPLY:  # which anyone gets; anything else goes to a peer
            self._remember(route, endpoint, traffic_class, family.known_hosts)
        return route.send(datagrams)

    def _remember(
        self, route: Route, endpoint: Endpoint, traffic_class: int, known_hosts: KnownHosts | ReportedHosts | None
    ) -> None:
        """Keep a route to a peer, and let what the peer sends no longer wait among what strangers send."""
        if known_hosts is not None and known_hosts.add(endpoint.address_bytes[:8], time.monotonic()):
            self._forget_routes()
        if len(self._routes) >= MAX_ROUTES:
            self._forget_routes()
        self._routes[endpoint, traffic_class] = route
        self._latest = endpoint, traffic_class, route

    def _forget_routes(self) -> None:
        self._routes.clear()
        self._latest = None, 0, None


def _family(endpoint: Endpoint) -> socket.AddressFamily:
    return socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
