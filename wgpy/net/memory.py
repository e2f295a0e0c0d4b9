"""A network without a kernel: UDP ports that reach each other within this process, to test programs with tunnels."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from wgpy.burst import Datagrams
from wgpy.config.values import ALL_OFFLOADS, Offloads
from wgpy.endpoint import Endpoint
from wgpy.errors import SocketError
from wgpy.net.datagrams import Received, SendResult

_EPHEMERAL: Final = 49152  # the first dynamic port of RFC 6335


class MemoryNetwork:
    """Hosts that reach each other by address: `Tunnel(udp=network.host("192.0.2.1"))`.

    It belongs to one thread, the event loop's.
    """

    delay: float
    """Seconds that every datagram takes."""
    carries: Callable[[Endpoint, Endpoint, bytes], bool] | None
    """If set, called with a datagram's source, destination and bytes: whether it arrives. For loss and cut links."""

    def __init__(self, *, delay: float = 0.0) -> None:
        self.delay = delay
        self.carries = None
        self._ports: dict[tuple[str, int], MemoryUdp] = {}
        self._flying: deque[tuple[Endpoint, Endpoint, bytes, int]] = deque()

    def host(self, address: str) -> MemoryHost:
        """A host with this IPv4 or IPv6 address. Call it again for each further address."""
        return MemoryHost(self, address)

    def bind(self, udp: MemoryUdp, port: int) -> int:
        """Take a port of a host. Raises SocketError when it is taken."""
        for number in [port] if port else count(_EPHEMERAL):
            if (udp.address, number) not in self._ports:
                self._ports[udp.address, number] = udp
                return number
        raise SocketError(f"port {port} of {udp.address} is in use in this network")

    def release(self, udp: MemoryUdp) -> None:
        """Give a port back."""
        self._ports.pop((udp.address, udp.port), None)

    def send(self, source: Endpoint, destination: Endpoint, datagram: bytes, traffic_class: int) -> None:
        """Deliver a datagram after `delay` seconds; it is lost if no port is bound at its destination."""
        if self.carries is not None and not self.carries(source, destination, datagram):
            return
        self._flying.append((source, destination, datagram, traffic_class & 3))
        asyncio.get_running_loop().call_later(self.delay, self._land)  # timers of the same time have no order

    def _land(self) -> None:
        source, destination, datagram, ecn = self._flying.popleft()
        udp = self._ports.get((destination.host, destination.port))
        if udp is not None:  # otherwise it is lost without a word, as on the Internet
            udp.arrive(Received(Datagrams.of(datagram), source, ecn))


class MemoryHost:
    """One address of a network; `Tunnel(udp=...)` takes it."""

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        self.network = network
        self.address = address

    def open(self, port: int = 0, *, fwmark: int = 0, offloads: Offloads = ALL_OFFLOADS) -> MemoryUdp:
        """Bind a port, 0 for any. Raises SocketError when it is taken."""
        return MemoryUdp(self.network, self.address, port)


class MemoryUdp:
    """An open port of a host, with the methods of UdpSockets. Never full or under load, and refuses nothing."""

    def __init__(self, network: MemoryNetwork, address: str, port: int = 0) -> None:
        self.address = address
        self._network = network
        self._arrived: deque[Received] = deque()
        self._readable: Callable[[Any], bool] | None = None
        self.port: int = network.bind(self, port)

    @property
    def sockets(self) -> list[Any]:
        """No sockets, because there is no kernel."""
        return []

    def socket_for(self, endpoint: Endpoint) -> None:
        """There is no socket to wait for, because nothing ever remains to be sent."""

    def set_fwmark(self, mark: int) -> None:
        """Nothing here looks at marks."""

    def forget_refusals(self) -> None:
        """Nothing was refused."""

    def start_reading(self, loop: asyncio.AbstractEventLoop, readable: Callable[[Any], bool]) -> None:
        """Call `readable` for each datagram that has arrived or will arrive."""
        self._readable = readable
        if self._arrived:
            loop.call_soon(self._tell)

    def stop_reading(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call `readable` no more."""
        self._readable = None

    def arrive(self, received: Received) -> None:
        """Take in a datagram from the network."""
        self._arrived.append(received)
        self._tell()

    def receive(self, sock: object) -> Received | None:
        """The oldest datagram that has arrived; None if there is none."""
        return self._arrived.popleft() if self._arrived else None

    def send(self, datagrams: Datagrams, endpoint: Endpoint, traffic_class: int) -> SendResult:
        """Send every datagram at once."""
        for datagram in datagrams:
            self._network.send(Endpoint(self.address, self.port), endpoint, bytes(datagram), traffic_class)
        return SendResult()

    def close(self) -> None:
        """Give the port back."""
        self._network.release(self)

    def _tell(self) -> None:
        while self._arrived and self._readable is not None:
            self._readable(self)
