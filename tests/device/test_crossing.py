"""Both ends begin at once, so that their handshakes cross: both complete.

This is tested against the kernel and wireguard-go too, which have one handshake state for each peer: an initiation that
arrives replaces their own (kernel noise.c, wg_noise_handshake_consume_initiation).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, permutations

import pytest

from tests.support.packets import ipv4_packet
from tests.support.world import Host, Link, Seen, World
from wgpy.constants import MESSAGE_INITIATION, MESSAGE_RESPONSE, MESSAGE_TRANSPORT, REKEY_TIMEOUT
from wgpy.device.effects import DropReason, Effects, EventKind
from wgpy.device.peer import Peer
from wgpy.endpoint import Endpoint
from wgpy.noise.handshake import InitiationReceived, SessionKeys


class KernelPeer(Peer):
    """A peer as in Linux and wireguard-go: one handshake state, and one older session."""

    def answer_initiation(
        self, initiation: InitiationReceived, source: Endpoint, now: float, effects: Effects
    ) -> DropReason | None:
        pending = self.handshake.pending
        refusal = super().answer_initiation(initiation, source, now, effects)
        if refusal is None and pending is not None:
            self._forget_initiation()
        return refusal

    def _begin_session(self, keys: SessionKeys, now: float) -> None:
        was_next = self.keypairs.next
        super()._begin_session(keys, now)
        self._keep(0 if not keys.is_initiator else 1)
        if keys.is_initiator and was_next is not None:
            assert self.keypairs.older == [was_next]

    def confirm_keypair(self, *args: object) -> None:
        super().confirm_keypair(*args)  # type: ignore[arg-type]
        self._keep(1)

    def _keep(self, count: int) -> None:
        for keypair in self.keypairs.older[count:]:
            self.indices.remove(keypair.local_index)
        self.keypairs.older = self.keypairs.older[:count]


def peers(*hosts: Host) -> Iterator[Peer]:
    for host in hosts:
        yield from host.device._peers.values()


def pair(world: World, *, kernel: bool) -> tuple[Host, Host]:
    """Two hosts that know each other; with `kernel` the second keeps one handshake state."""
    a, b = world.pair()
    if kernel:
        for peer in peers(b):
            peer.__class__ = KernelPeer
    return a, b


def count(world: World, kind: int, since: float = 0.0) -> int:
    return sum(seen.kind == kind for seen in world.eve if seen.at >= since)


def demand_sound(world: World, a: Host, b: Host) -> None:
    """Each end sends under keys that the other has, one of them will renew, and neither keeps more than it may."""
    (of_a,), (of_b,) = peers(a), peers(b)
    session_a, session_b = of_a.keypairs.current, of_b.keypairs.current
    assert session_a is not None
    assert session_b is not None
    assert session_a.remote_index in {keypair.local_index for keypair in of_b.keypairs}
    assert session_b.remote_index in {keypair.local_index for keypair in of_a.keypairs}
    assert session_a.is_initiator or session_b.is_initiator, "nobody would renew the session in time"
    for host, peer in ((a, of_a), (b, of_b)):
        assert len(peer.keypairs) <= 5
        assert len(host.device._indices) == len(peer.keypairs) + (peer.handshake.pending is not None)


@pytest.mark.parametrize("kernel", [False, True], ids=["wgpy", "kernel"])
@pytest.mark.parametrize("seed", range(24))
def test_handshakes_that_cross_complete_in_one_round_trip_and_lose_nothing(seed: int, kernel: bool) -> None:
    """At the start and at each renewal, in every order of arrival."""
    world = World(seed)
    a, b = pair(world, kernel=kernel)
    world.link = Link(latency=0.05, jitter=world.random.choice([0.0, 0.0, 0.001, 0.06]))
    start = world.now
    sent: dict[str, list[bytes]] = {"a": [], "b": []}
    for number in range(520):
        step = b"%d" % number
        if world.random.random() < 0.5:
            sent["a"].append(world.send(a, b, step))
            sent["b"].append(world.send(b, a, step))
        else:
            sent["b"].append(world.send(b, a, step))
            sent["a"].append(world.send(a, b, step))
        world.run(0.01 if world.now - start < 0.3 or world.now - start > 119.5 else 1)
    world.run(1)
    assert sorted(b.received) == sorted(sent["a"])
    assert sorted(a.received) == sorted(sent["b"])
    for host in (a, b):
        assert host.happened(EventKind.HANDSHAKE_UNANSWERED) == 0
        times = [seen.at for seen in world.eve if seen.kind == MESSAGE_INITIATION and seen.source == host.endpoint]
        assert all(later - earlier > 100 for earlier, later in pairwise(times)), "an initiation was repeated"
    first = min(seen.at for seen in world.eve if seen.kind == MESSAGE_TRANSPORT)
    assert first - start < 0.3
    demand_sound(world, a, b)


class Wire:
    """Holds back what two hosts send, so that a test can let it arrive in any order."""

    def __init__(self, *, kernel: bool, rekey: bool) -> None:
        self.world = World(1)
        self.a, self.b = pair(self.world, kernel=kernel)
        if rekey:
            self.world.send(self.a, self.b, b"before")
            self.world.run(130)
            self.a.received.clear()
            self.b.received.clear()
        self.world.link.cut = True
        self.held: list[Seen] = []
        self.world.on_datagram = self.held.append

    def hosts_of(self, seen: Seen) -> tuple[Host, Host]:
        return (self.a, self.b) if seen.source == self.a.endpoint else (self.b, self.a)

    def deliver(self, seen: Seen) -> None:
        self.held.remove(seen)
        self.world.arrive(self.hosts_of(seen)[1], seen.datagram, seen.source)


@pytest.mark.parametrize("kernel", [False, True], ids=["wgpy", "kernel"])
@pytest.mark.parametrize("rekey", [False, True], ids=["first", "rekey"])
@pytest.mark.parametrize("priorities", list(permutations(range(4))))
def test_every_order_of_arrival_ends_in_a_session(priorities: tuple[int, ...], rekey: bool, kernel: bool) -> None:
    """`priorities`: which initiation or answer, of a or b, arrives first when several are on the wire."""
    wire = Wire(kernel=kernel, rekey=rekey)
    world, a, b = wire.world, wire.a, wire.b
    for host, other in ((a, b), (b, a)):
        peer = next(peers(host))
        effects = Effects()
        peer.initiate(world.now, effects)
        world.do(host, effects)
        world.send(host, other, b"waits")

    def rank(seen: Seen) -> int:
        return priorities[(seen.source == b.endpoint) * 2 + (seen.kind != MESSAGE_INITIATION)]

    while wire.held:
        wire.deliver(min(wire.held, key=rank))
    assert count(world, MESSAGE_INITIATION, world.now) == 2
    assert (len(a.received), len(b.received)) == (1, 1)
    demand_sound(world, a, b)
    for number in range(3):
        to_b, to_a = world.send(a, b, b"%d" % number), world.send(b, a, b"%d" % number)
        for seen in wire.held[::-1]:
            wire.deliver(seen)
        assert b.received[-1] == to_b
        assert a.received[-1] == to_a
    demand_sound(world, a, b)


@pytest.mark.parametrize("kernel", [False, True], ids=["wgpy", "kernel"])
@pytest.mark.parametrize("seed", range(20))
def test_crossing_on_a_bad_network_recovers_within_a_few_tries(seed: int, kernel: bool) -> None:
    world = World(seed, Link(latency=0.05, jitter=0.1, loss=0.25, duplication=0.3))
    a, b = pair(world, kernel=kernel)
    for host, other in ((a, b), (b, a)):
        world.configure(host, public_key=other.public_key, persistent_keepalive=5)
    assert world.run_until(lambda: bool(a.happened(EventKind.HANDSHAKE_COMPLETED)), 60)
    world.link = Link()
    world.run(REKEY_TIMEOUT + 1)
    packets = [(world.send(a, b), world.send(b, a)) for _ in range(3)]
    world.run(1)
    assert b.received[-3:] == [packet for packet, _ in packets]
    assert a.received[-3:] == [packet for _, packet in packets]
    demand_sound(world, a, b)


def test_a_peer_that_starts_handshakes_again_and_again_cannot_make_our_memory_grow() -> None:
    world = World()
    a, b = pair(world, kernel=False)
    (of_b,) = peers(b)
    (of_a,) = peers(a)
    most = 0
    for _ in range(200):
        of_a.handshake_sent_at = float("-inf")
        effects = Effects()
        of_a.initiate(world.now, effects)
        world.do(a, effects)
        of_b.initiate(world.now, Effects())  # and ours stays pending
        world.run(0.1)
        most = max(most, len(b.device._indices))
    assert most <= 6  # five sessions and the initiation


def test_an_answer_that_is_held_back_does_not_end_the_session_that_was_confirmed_meanwhile() -> None:
    wire = Wire(kernel=False, rekey=False)
    world, a, b = wire.world, wire.a, wire.b
    world.send(a, b)
    world.send(b, a)
    (held,) = [seen for seen in wire.held if seen.source == a.endpoint]
    wire.deliver(next(seen for seen in wire.held if seen.source == b.endpoint))
    wire.deliver(held)
    late = next(seen for seen in wire.held if seen.kind == MESSAGE_RESPONSE and seen.source == b.endpoint)
    wire.held.remove(late)
    while wire.held:
        wire.deliver(wire.held[0])
    (of_a,) = peers(a)
    session = of_a.keypairs.current
    assert session is not None
    assert not session.is_initiator
    world.arrive(a, late.datagram, b.endpoint)
    assert of_a.keypairs.current is session
    assert a.device.status().drops == {"unknown_index": 1}


def test_a_retransmission_within_five_seconds_of_our_answer_is_postponed() -> None:
    world = World()
    a, b = pair(world, kernel=False)
    world.link.cut = True
    world.send(a, b)
    world.run(4)
    world.links[frozenset(("a", "b"))] = Link(cut=True)
    world.send(b, a)
    world.arrive(a, world.eve[-1].datagram, b.endpoint)  # and our answer is lost
    world.inject(a, ipv4_packet(a.inner, b.inner))
    before = count(world, MESSAGE_INITIATION)
    world.run(5.5)
    ours = [seen.at for seen in world.eve if seen.kind == MESSAGE_INITIATION and seen.source == a.endpoint]
    assert len(ours) == 2
    assert before == 2
    assert 9.0 <= ours[1] - ours[0] <= 9.5
