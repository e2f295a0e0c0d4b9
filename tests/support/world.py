"""Several Devices, a virtual clock, and links that lose, repeat, reorder, corrupt and cut off, all from one seed.

`eve` sees every datagram that is put on a wire. Nothing here sleeps: `run` jumps from event to event.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import count
from random import Random

from tests.support.packets import ipv4_packet
from wgpy.burst import Burst, Datagrams
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.device.effects import Effects, Event, EventKind
from wgpy.device.status import PeerStatus
from wgpy.endpoint import Endpoint
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.stack.host import Host as StackHost

EPOCH_NS = 1_700_000_000 * 10**9


@dataclass
class Link:
    """How datagrams fare between two hosts, each way alike. Probabilities from 0 to 1, times in seconds."""

    latency: float = 0.01
    jitter: float = 0.0  # more than `latency` apart in sending does not keep the order
    loss: float = 0.0
    duplication: float = 0.0
    corruption: float = 0.0
    mtu: int = 65535
    cut: bool = False


@dataclass
class Seen:
    """One datagram as the eavesdropper saw it."""

    at: float
    source: Endpoint
    destination: Endpoint
    datagram: bytes
    traffic_class: int

    @property
    def kind(self) -> int:
        return int.from_bytes(self.datagram[:4], "little")


@dataclass
class Host:
    """One device, where it is, and what came out of it."""

    name: str
    device: Device
    private_key: PrivateKey
    endpoint: Endpoint
    inner: str  # its address inside the tunnel
    received: list[bytes] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    unanswered: int = 0  # initiations
    wall_offset_ns: int = 0
    under_load: bool = False  # more handshakes wait than it can handle
    asleep: bool = False  # suspended: it neither hears nor notices that time passes
    stack: StackHost | None = None  # what answers inside the tunnel

    @property
    def public_key(self) -> PublicKey:
        return self.private_key.public_key

    def peer(self, other: Host) -> PeerStatus:
        return next(peer for peer in self.device.status().peers if peer.public_key == other.public_key)

    def happened(self, kind: EventKind) -> int:
        return sum(1 for event in self.events if event.kind is kind)


class World:
    """Hosts and the network between them."""

    def __init__(self, seed: int = 0, link: Link | None = None) -> None:
        self.random = Random(seed)
        self.now = 1000.0
        self.link = link or Link()
        self.links: dict[frozenset[str], Link] = {}
        self.hosts: dict[str, Host] = {}
        self.eve: list[Seen] = []
        self.on_datagram: Callable[[Seen], None] | None = None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    # Building.

    def host(self, name: str, *, up: bool = True) -> Host:
        """A new host at 192.0.2.n, inside 10.0.0.n."""
        number = len(self.hosts) + 1
        host = Host(
            name,
            self.device(lambda: self.wall_ns(host)),
            PrivateKey(self.random.randbytes(32)),
            Endpoint(f"192.0.2.{number}", 51820),
            f"10.0.0.{number}",
        )
        host.device.configure(DeviceChange(private_key=host.private_key), self.now)
        self.hosts[name] = host
        if up:
            self.do(host, host.device.start(self.now))
        return host

    def device(self, wall_clock: Callable[[], int]) -> Device:
        """What a host runs."""
        return Device(random=self.random.randbytes, wall_clock=wall_clock)

    def pair(self, *, psk: PresharedKey | None = None, one_way: bool = False) -> tuple[Host, Host]:
        """Two hosts that know each other."""
        a, b = self.host("a"), self.host("b")
        self.introduce(a, b, psk=psk, one_way=one_way)
        return a, b

    def connected(self) -> tuple[Host, Host]:
        """Two hosts with a session that both have used; what that took is forgotten."""
        a, b = self.pair()
        self.send(a, b)
        self.run(1)
        self.send(b, a)
        self.run(1)
        for host in (a, b):
            host.received.clear()
            host.events.clear()
        self.eve.clear()
        return a, b

    def introduce(self, a: Host, b: Host, *, psk: PresharedKey | None = None, one_way: bool = False) -> None:
        """Make each the other's peer; with `one_way` only `a` knows where `b` is."""
        for host, other, endpoint in ((a, b, b.endpoint), (b, a, None if one_way else a.endpoint)):
            self.configure(
                host,
                public_key=other.public_key,
                preshared_key=psk,
                endpoint=endpoint,
                allowed_ips=(AllowedIPChange(ip_network(other.inner)),),
            )

    def configure(self, host: Host, **peer: object) -> None:
        """Change one peer of a host."""
        change = DeviceChange(peers=(PeerChange(**peer),))  # type: ignore[arg-type]
        self.do(host, host.device.configure(change, self.now))

    # Time.

    def wall_ns(self, host: Host) -> int:
        return EPOCH_NS + int(self.now * 1e9) + host.wall_offset_ns

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, condition: Callable[[], bool], seconds: float = 30.0) -> bool:
        """Let time pass until the condition holds, at most `seconds`; whether it came to hold."""
        end = self.now + seconds
        while not condition():
            at, act = self._next()
            if act is None or at > end:
                self.now = end
                return condition()
            self.now = max(self.now, at)
            act()
        return True

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), act))

    def _next(self) -> tuple[float, Callable[[], None] | None]:
        """The next thing to happen: what is on a wire, or a host's deadline."""
        at, act = self._events[0][0] if self._events else float("inf"), None
        if self._events:
            act = self._pop
        for host in self.hosts.values():
            if host.asleep:
                continue
            deadline = host.device.next_timeout()
            if deadline is not None and deadline < at:
                at, act = deadline, self._timeout(host)
            if host.stack is not None and host.stack.next_timeout() < at:
                at, act = host.stack.next_timeout(), self._stack_timeout(host, host.stack)
        return at, act

    def _pop(self) -> None:
        heapq.heappop(self._events)[2]()

    def _timeout(self, host: Host) -> Callable[[], None]:
        return lambda: self.do(host, host.device.handle_timeout(self.now))

    def _stack_timeout(self, host: Host, stack: StackHost) -> Callable[[], None]:
        def act() -> None:
            stack.handle_timeout(self.now)
            self.pump(host)

        return act

    # Traffic.

    def send(self, source: Host, destination: Host, payload: bytes = b"hello") -> bytes:
        """Have one host send the other an inner packet; returns the packet."""
        packet = ipv4_packet(source.inner, destination.inner, payload)
        self.inject(source, packet)
        return packet

    def inject(self, host: Host, packet: bytes | Burst) -> None:
        self.do(host, host.device.send(packet, self.now))

    def pump(self, host: Host) -> None:
        """What a host's stack has to send leaves."""
        while host.stack is not None and (burst := host.stack.transmit(self.now)) is not None:
            self.inject(host, burst)

    def arrive(self, host: Host, datagram: bytes, source: Endpoint, ecn: int = 0) -> None:
        """A datagram reaches a host, whoever made it."""
        datagrams = Datagrams.of(datagram)
        self.do(host, host.device.receive(datagrams, source, self.now, ecn, under_load=host.under_load))

    def do(self, host: Host, effects: Effects) -> None:
        """Carry out a device's effects."""
        for transmit in effects.transmits:
            for datagram in transmit.datagrams:
                seen = Seen(self.now, host.endpoint, transmit.endpoint, bytes(datagram), transmit.traffic_class)
                self.eve.append(seen)
                if self.on_datagram is not None:
                    self.on_datagram(seen)
                self._put_on_wire(host, seen)
        for burst in effects.deliveries:
            host.received += [bytes(packet) for packet in burst.packets()]
            if host.stack is not None:
                host.stack.receive(burst, self.now)
        self.pump(host)
        host.events += effects.events
        host.unanswered += len(effects.unanswered)

    def _put_on_wire(self, host: Host, seen: Seen) -> None:
        target = next((h for h in self.hosts.values() if h.endpoint.same_remote(seen.destination)), None)
        if target is None:
            return
        link = self.links.get(frozenset((host.name, target.name)), self.link)
        if link.cut or len(seen.datagram) > link.mtu or self.random.random() < link.loss:
            return
        for _ in range(2 if self.random.random() < link.duplication else 1):
            datagram = seen.datagram
            if self.random.random() < link.corruption:
                spoilt = bytearray(datagram)
                spoilt[self.random.randrange(len(spoilt))] ^= 1 << self.random.randrange(8)
                datagram = bytes(spoilt)
            delay = link.latency + self.random.random() * link.jitter
            self.at(self.now + delay, self._arrival(target, datagram, seen.source, seen.traffic_class & 3))

    def _arrival(self, target: Host, datagram: bytes, source: Endpoint, ecn: int) -> Callable[[], None]:
        return lambda: None if target.asleep else self.arrive(target, datagram, source, ecn)
