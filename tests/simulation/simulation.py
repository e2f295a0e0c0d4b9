"""Hours of a server and its clients in virtual time, with all that goes wrong in networks, drawn from one seed.

Links lose, repeat, reorder, corrupt and shorten datagrams; networks are cut off; clients move; clocks step back; hosts
sleep and restart, and TCP streams go on through all of it. With every other four seeds each host has two workers, one
of which may die while the other goes on. `Checker` checks every invariant after every event. A breach of one is an
AssertionError.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_network
from typing import Final

from tests.simulation.streams import DELIVERED, FORGOTTEN, Streams
from tests.support.eve import Eve
from tests.support.packets import ipv4_packet
from tests.support.workers import Workers, WorkersWorld, devices_of
from tests.support.world import Host, Link, Seen, World
from wgpy.constants import (
    KEEPALIVE_TIMEOUT,
    MAX_STAGED_PACKETS,
    REKEY_TIMEOUT,
    RETRANSMIT_JITTER,
    ZERO_KEY_MATERIAL_AFTER,
)
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.endpoint import Endpoint

ICMP, TCP = 1, 6
HOUR: Final = 3600.0
# Seconds within which a sender notices that nothing comes back, and its initiation is answered, if need be the second.
RECOVERY: Final = KEEPALIVE_TIMEOUT + 2 * (REKEY_TIMEOUT + RETRANSMIT_JITTER) + 1
# Timers are late by the time a host slept; beyond that they are exact.
SLACK: Final = 0.001
BETWEEN: Final = 120.0  # seconds, on average, between two incidents


class Breach(AssertionError):
    """An invariant does not hold."""


def demand(condition: bool, what: str) -> None:
    if not condition:
        raise Breach(what)


class Checker:
    """Checks what is delivered, the wire (with `Eve`), and the state of every host."""

    def __init__(self, world: World, hosts: list[Host]) -> None:
        self.world = world
        self.hosts = hosts
        self.eve = Eve(hosts)
        self.on_the_way: dict[bytes, Host] = {}  # by packet: the host that is to get it
        self.delivered = 0
        self.digest = 0  # of all that was on the wire
        world.on_datagram = self.look

    def look(self, seen: Seen) -> None:
        self.digest = zlib.crc32(seen.datagram, self.digest)
        self.world.eve.clear()
        self.eve.look(seen)

    def check(self) -> None:
        """After every event."""
        for host in self.hosts:
            for packet in host.received:
                if packet[9] in (ICMP, TCP):  # its own error: a packet had no route; what `Streams` looks at
                    continue
                demand(self.on_the_way.pop(packet, None) is host, f"{host.name} got what nobody sent it, or twice")
                self.delivered += 1
            host.received.clear()
            host.events.clear()
            if not host.asleep:
                self.check_state(host)

    def check_state(self, host: Host) -> None:
        """Every key is erased in time, and no table grows."""
        for device in devices_of(host.device):
            self.check_device(host, device)

    def check_device(self, host: Host, device: Device) -> None:
        """This runs after every event, so texts are made only for a breach."""
        sessions, oldest = 0, self.world.now - ZERO_KEY_MATERIAL_AFTER - SLACK
        peers = device._peers
        for peer in peers.values():
            for keypair in peer.keypairs:
                sessions += 1
                if keypair.created_at < oldest:
                    raise Breach(f"{host.name} has keys of {self.world.now - keypair.created_at:.1f} s")
            if peer.handshake.pending is not None:
                sessions += 1
            if peer.staged and sum(map(len, peer.staged)) > MAX_STAGED_PACKETS:
                raise Breach(f"{host.name} stages too much")
        if len(device._indices) != sessions:
            raise Breach(f"{host.name} has indices that stand for nothing")
        if len(device._deadlines) > 2 * len(peers) + 64:
            raise Breach(f"{host.name} has {len(device._deadlines)} deadlines to wait for")


class Simulation:
    """One seed's run. `digest` is equal for equal runs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.world = WorkersWorld(seed, workers=2) if seed // 4 % 2 else World(seed)
        self.random = self.world.random
        names = ("server", "one", "two", "three", "four", "five")
        self.hosts = [self.world.host(name) for name in names[: 3 + seed % 4]]
        self.server, *self.clients = self.hosts
        for client in self.clients:
            self.world.introduce(client, self.server, one_way=True)
        self.checker = Checker(self.world, self.hosts)
        self.streams = Streams(self.world, self.hosts, demand)
        self.sent = 0
        self.counts: Counter[str] = Counter()

    @property
    def digest(self) -> int:
        return self.checker.digest

    def run(self, hours: float) -> None:
        end = self.world.now + hours * HOUR
        incidents: list[tuple[int, Callable[[], None]]] = [
            (40, self.talk),
            (10, self.stream),
            (4, self.spoof),
            (10, self.bad_network),
            (5, self.calm),
            (2, self.settle),
            (3, self.part),
            (6, self.move),
            (3, self.clock_steps_back),
            (3, self.sleep),
            (3, self.restart),
        ]
        weights, acts = zip(*incidents, strict=True)
        while self.world.now < end:
            self.pass_time(self.random.expovariate(1 / BETWEEN))
            (act,) = self.random.choices(acts, weights)
            self.counts[act.__name__] += 1
            act()

    def pass_time(self, seconds: float) -> None:
        """Event by event, each looked at."""

        def check() -> bool:
            self.checker.check()
            self.streams.turn()
            return False

        self.world.run_until(check, seconds)

    def send(self, source: Host, destination: Host) -> bytes:
        self.sent += 1
        payload = self.sent.to_bytes(8) + bytes(self.random.randrange(60))
        packet = ipv4_packet(source.inner, destination.inner, payload)
        self.checker.on_the_way[packet] = destination
        self.world.inject(source, packet)
        return packet

    # What happens.

    def talk(self) -> None:
        client = self.random.choice(self.clients)
        ends = [client, self.server]
        if self.random.random() < 0.3:
            ends.reverse()
        if any(end.asleep for end in ends):
            return
        for _ in range(self.random.randrange(1, 6)):
            self.send(*ends)
            if self.random.random() < 0.5:
                self.send(*ends[::-1])
            self.pass_time(self.random.choice((0.0, 0.02, 1.0)))

    def stream(self) -> None:
        """A client and the server begin to speak TCP, and nobody waits for it."""
        ends = [self.random.choice(self.clients), self.server]
        if self.random.random() < 0.3:
            ends.reverse()
        self.streams.open(*ends)

    def spoof(self) -> None:
        """A client pretends to be the other; the server must not believe it."""
        liar, other = self.random.sample(self.clients, 2)
        if not liar.asleep:
            self.world.inject(liar, ipv4_packet(other.inner, self.server.inner, b"spoofed"))

    def bad_network(self) -> None:
        chance = self.random.random
        self.world.link = Link(
            latency=chance() / 2,
            jitter=chance(),
            loss=chance() / 2,
            duplication=chance() / 4,
            corruption=chance() / 4,
            mtu=self.random.choice((65535, 65535, 140, 120)),
        )

    def part(self) -> None:
        self.world.link = Link(cut=True)
        self.pass_time(self.random.uniform(1, 700))

    def move(self) -> None:
        """A NAT forgets, or a client is somewhere else."""
        client = self.random.choice(self.clients)
        client.endpoint = Endpoint(f"198.51.100.{self.random.randrange(1, 255)}", self.random.randrange(1024, 65536))

    def clock_steps_back(self) -> None:
        self.random.choice(self.hosts).wall_offset_ns -= self.random.randrange(HOUR_NS)

    def sleep(self) -> None:
        host = self.random.choice(self.hosts)
        host.asleep = True
        self.pass_time(self.random.uniform(1, 1200))
        host.asleep = False
        host.device.forget_sessions()

    def restart(self) -> None:
        host = self.random.choice(self.hosts)
        if isinstance(host.device, Workers) and self.random.random() < 0.5:
            self.replace_worker(host, host.device)
        else:
            self.start_anew(host)

    def start_anew(self, host: Host) -> None:
        """As after a crash: of what it knew, the latest timestamp alone is left."""
        before = host.device
        host.device = self.world.device(lambda: self.world.wall_ns(host))
        host.device.timestamp_floor = before.timestamp_floor
        host.device.configure(self.change_of(host), self.world.now)
        self.streams.restarted(host)
        self.world.do(host, host.device.start(self.world.now))

    def replace_worker(self, host: Host, workers: Workers) -> None:
        """One worker dies, and with it its peers' sessions; the other goes on."""
        effects = workers.replace(self.random.randrange(2), self.change_of(host), self.world.now)
        self.world.do(host, effects)

    def change_of(self, host: Host) -> DeviceChange:
        return change_of(host, self.clients if host is self.server else [self.server])

    def calm(self) -> None:
        """On a good network every client reaches the server within the protocol's bounds, and the other way at once."""
        self.world.link = Link()
        for client in self.clients:
            for ends, bound in (((client, self.server), RECOVERY), ((self.server, client), 2.0)):
                begun = self.world.now
                packets: list[bytes] = []
                while not any(packet not in self.checker.on_the_way for packet in packets):
                    late = self.world.now - begun
                    demand(late <= bound, f"{ends[0].name} has not reached {ends[1].name} for {late:.1f} s")
                    packets.append(self.send(*ends))
                    self.pass_time(1.0)

    def settle(self) -> None:
        """And whatever TCP was still to deliver then arrives."""
        self.calm()
        self.pass_time(DELIVERED)
        self.streams.settle()
        self.pass_time(FORGOTTEN)
        self.streams.check_empty()


HOUR_NS: Final = 3600 * 10**9


def change_of(host: Host, others: list[Host]) -> DeviceChange:
    """A host's configuration: a client knows where the server is, and the server nobody."""
    return DeviceChange(
        private_key=host.private_key,
        peers=tuple(
            PeerChange(
                public_key=other.public_key,
                endpoint=other.endpoint if other.name == "server" else None,
                allowed_ips=(AllowedIPChange(ip_network(other.inner)),),
            )
            for other in others
        ),
    )
