"""What an observer can learn: three hosts on a bad network, and an eavesdropper that checks every datagram."""

from __future__ import annotations

import pytest

from tests.support.eve import SECRET, Eve
from tests.support.packets import ipv4_packet
from tests.support.world import Link, World
from wgpy.constants import MESSAGE_INITIATION, MESSAGE_RESPONSE, MESSAGE_TRANSPORT


@pytest.mark.parametrize("seed", range(3))
def test_the_wire_shows_no_more_than_it_must(seed: int) -> None:
    world = World(seed, Link(latency=0.05, jitter=0.05, loss=0.1, duplication=0.05, corruption=0.02))
    hosts = [world.host(name) for name in "abc"]
    for i, host in enumerate(hosts):
        for other in hosts[i + 1 :]:
            world.introduce(host, other)
    eve = Eve(hosts)
    world.on_datagram = eve.look
    for _ in range(400):
        sender, receiver = world.random.sample(hosts, 2)
        payload = SECRET + bytes(world.random.randrange(1300))
        world.inject(sender, ipv4_packet(sender.inner, receiver.inner, payload, tos=0xB8 | world.random.randrange(4)))
        world.run(world.random.choice((0.0, 0.01, 1.0, 3.0)))
    assert {seen.kind for seen in world.eve} == {MESSAGE_INITIATION, MESSAGE_RESPONSE, MESSAGE_TRANSPORT}
    assert len(eve.ephemerals) > 12, "sessions were renewed"
    assert sum(len(host.received) for host in hosts) > 250


def test_keepalives_are_not_answered_by_keepalives() -> None:
    world = World()
    a, b = world.pair()
    world.send(a, b)
    world.run(100)
    kinds = [(seen.kind, len(seen.datagram)) for seen in world.eve]
    assert kinds == [(1, 148), (2, 92), (4, 64), (4, 32)]
