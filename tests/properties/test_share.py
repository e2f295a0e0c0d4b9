"""However many workers serve an interface, it does what one would: the same packets out, the same deliveries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import ip_network
from random import Random
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from tests.support.bursts import burst_of
from tests.support.packets import ipv4_packet
from tests.support.workers import Workers
from tests.support.world import Host, Seen, World
from wgpy.constants import MESSAGE_INITIATION
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey

CLIENTS = 4
SHARED = AllowedIPChange(ip_network("10.1.0.0/16"))  # it goes from client to client
ALL = AllowedIPChange(ip_network("0.0.0.0/0"))

VERBS = ["share", "stray", "replay", "roam", "restart", "remove", "add", "redirect"]

clients = st.integers(0, CLIENTS - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["up", "up", "down", "down"]), clients, st.integers(1, 5)),
        st.tuples(st.sampled_from(VERBS), clients),
        st.tuples(st.sampled_from(["cut", "link", "key", "replace", "suspend", "nowhere"])),
        st.tuples(st.just("wait"), st.sampled_from([0.03, 1.0, 11.0, 130.0, 200.0, 600.0])),
    ),
    max_size=40,
)


class Site(World):
    """A gateway that some number of workers serve, and its clients."""

    def __init__(self, workers: int) -> None:
        super().__init__(1)
        self.workers = workers
        self.gateway = self.host("gateway")
        self.clients = [self.host(f"client {number}") for number in range(CLIENTS)]
        for client in self.clients:
            self.introduce(client, self.gateway, one_way=True)
            self.configure(client, public_key=self.gateway.public_key, allowed_ips=(ALL,))
        self.sent = 0
        self.seen: list[Seen] = []
        self.on_datagram = self.seen.append
        self.initiations: dict[Endpoint, Seen] = {}

    def device(self, wall_clock: Callable[[], int]) -> Device:
        if self.hosts or self.workers == 1:
            return Device(random=self.steady, wall_clock=wall_clock)
        queue = Random(1).randrange
        return cast(Device, Workers(self.workers, random=self.steady, wall_clock=wall_clock, queue=queue))

    def steady(self, size: int) -> bytes:
        """Without jitter, which workers would draw in another order."""
        return bytes(2) if size == 2 else self.random.randbytes(size)

    def packets(self, source: str, destination: str, count: int) -> list[bytes]:
        self.sent += 1
        return [ipv4_packet(source, destination, bytes((self.sent % 256, i)) * 8) for i in range(count)]

    def change(self, **fields: Any) -> None:
        self.do(self.gateway, self.gateway.device.configure(DeviceChange(**fields), self.now))

    def peer_change(self, client: Host) -> PeerChange:
        return PeerChange(public_key=client.public_key, allowed_ips=(AllowedIPChange(ip_network(client.inner)),))

    # What happens.

    def up(self, number: int, count: int) -> None:
        for packet in self.packets(self.clients[number].inner, self.gateway.inner, count):
            self.inject(self.clients[number], packet)

    def down(self, number: int, count: int) -> None:
        self.inject(self.gateway, burst_of(*self.packets(self.gateway.inner, self.clients[number].inner, count)))

    def share(self, number: int) -> None:
        """A network moves to a client, with traffic in both directions."""
        client = self.clients[number]
        self.configure(self.gateway, public_key=client.public_key, update_only=True, allowed_ips=(SHARED,))
        for each in self.clients:
            self.inject(each, *self.packets("10.1.2.3", self.gateway.inner, 1))
        self.inject(self.gateway, *self.packets(self.gateway.inner, "10.1.2.3", 1))

    def stray(self, number: int) -> None:
        """A source that the client may not use."""
        self.inject(self.clients[number], *self.packets("10.9.9.9", self.gateway.inner, 1))

    def nowhere(self) -> None:
        self.inject(self.gateway, *self.packets(self.gateway.inner, "10.200.0.1", 1))

    def replay(self, number: int) -> None:
        """Somebody sends the client's last initiation again, from somewhere else."""
        own = (s for s in reversed(self.seen) if s.kind == MESSAGE_INITIATION)
        found = next((s for s in own if s.source == self.clients[number].endpoint), None)
        if found is not None:
            self.arrive(self.gateway, found.datagram, Endpoint("203.0.113.9", 99))

    def roam(self, number: int) -> None:
        self.clients[number].endpoint = Endpoint(f"198.51.100.{self.sent % 250}", 1024 + len(self.seen))

    def restart(self, number: int) -> None:
        """The client forgets its sessions, so it calls again."""
        self.clients[number].device.forget_sessions()

    def remove(self, number: int) -> None:
        self.change(peers=(PeerChange(public_key=self.clients[number].public_key, remove=True),))

    def add(self, number: int) -> None:
        self.change(peers=(self.peer_change(self.clients[number]),))

    def redirect(self, number: int) -> None:
        """The gateway is told where the client is, and to keep it alive."""
        client = self.clients[number]
        self.configure(
            self.gateway,
            public_key=client.public_key,
            endpoint=client.endpoint,
            persistent_keepalive=25 * (self.sent % 2),
        )

    def cut(self) -> None:
        self.link.cut = not self.link.cut

    def key(self) -> None:
        """The gateway's key changes, and the clients learn of it."""
        before = self.gateway.public_key
        self.gateway.private_key = PrivateKey(self.random.randbytes(32))
        self.change(private_key=self.gateway.private_key)
        for client in self.clients:
            gone = PeerChange(public_key=before, remove=True)
            new = PeerChange(public_key=self.gateway.public_key, endpoint=self.gateway.endpoint, allowed_ips=(ALL,))
            self.do(client, client.device.configure(DeviceChange(peers=(gone, new)), self.now))

    def replace(self) -> None:
        self.change(replace_peers=True, peers=tuple(map(self.peer_change, reversed(self.clients))))

    def suspend(self) -> None:
        self.gateway.device.forget_sessions()

    def link_flaps(self) -> None:
        self.gateway.device.stop()
        self.inject(self.gateway, *self.packets(self.gateway.inner, self.clients[0].inner, 1))
        self.do(self.gateway, self.gateway.device.start(self.now))

    def take(self) -> tuple[Any, ...]:
        """What came out since the last time, whatever the order of what happened at the same time."""
        wire = Counter((s.at, s.kind, len(s.datagram), s.source, s.destination, s.traffic_class) for s in self.seen)
        received = [Counter(host.received) for host in self.hosts.values()]
        events = [Counter(host.events) for host in self.hosts.values()]
        for host in self.hosts.values():
            host.received.clear()
            host.events.clear()
        return wire, received, events, self.gateway.unanswered


def drops(host: Host) -> Counter[str]:
    """By reason: what is not for any peer of a worker is not counted with the peer."""
    status = host.device.status()
    return sum((Counter(peer.drops) for peer in status.peers), Counter(status.drops))


def rows(host: Host) -> list[Any]:
    return [
        (p.public_key, p.endpoint, p.allowed_ips, p.last_handshake_ns, p.tx_bytes, p.rx_bytes, p.persistent_keepalive)
        for p in host.device.status().peers
    ]


@given(st.sampled_from([2, 3, 5]), steps)
def test_workers_do_together_what_one_does_alone(workers: int, happenings: list[tuple[Any, ...]]) -> None:
    one, several = Site(1), Site(workers)
    for what, *arguments in happenings:
        for site in (one, several):
            if what == "wait":
                site.run(*arguments)
            else:
                getattr(site, "link_flaps" if what == "link" else what)(*arguments)
                site.run(0.025)
        assert one.take() == several.take(), what
        assert rows(one.gateway) == rows(several.gateway), what
        assert drops(one.gateway) == drops(several.gateway), what
