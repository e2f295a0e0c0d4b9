"""What somebody on the wire may learn: three hosts on a bad network, and an eavesdropper who checks every datagram."""

from __future__ import annotations

from struct import unpack_from

import pytest

from tests.support.packets import ipv4_packet
from tests.support.world import Host, Link, Seen, World
from wgpy.constants import (
    COOKIE_REPLY_SIZE,
    HANDSHAKE_TRAFFIC_CLASS,
    INITIATION_SIZE,
    MESSAGE_COOKIE_REPLY,
    MESSAGE_INITIATION,
    MESSAGE_RESPONSE,
    MESSAGE_TRANSPORT,
    RESPONSE_SIZE,
)

SIZES = {MESSAGE_INITIATION: INITIATION_SIZE, MESSAGE_RESPONSE: RESPONSE_SIZE, MESSAGE_COOKIE_REPLY: COOKIE_REPLY_SIZE}
SECRET = b"attack at dawn, bring the red umbrella"


class Eve:
    """Sees every datagram as it is sent."""

    def __init__(self, hosts: list[Host]) -> None:
        self.statics = {bytes(host.public_key) for host in hosts}
        self.ephemerals: set[bytes] = set()
        self.indices: set[bytes] = set()
        self.nonces: set[tuple[object, int, int]] = set()
        self.counters: dict[tuple[object, int], int] = {}

    def look(self, seen: Seen) -> None:
        datagram = seen.datagram
        assert datagram[1:4] == bytes(3), "the reserved bytes are zero"
        assert SECRET[:8] not in datagram
        assert not any(static in datagram for static in self.statics), "identities are hidden"
        if seen.kind == MESSAGE_TRANSPORT:
            self.look_at_data(seen)
            return
        assert len(datagram) == SIZES[seen.kind]
        assert seen.traffic_class == (0 if seen.kind == MESSAGE_COOKIE_REPLY else HANDSHAKE_TRAFFIC_CLASS)
        if seen.kind in (MESSAGE_INITIATION, MESSAGE_RESPONSE):
            start = 8 if seen.kind == MESSAGE_INITIATION else 12
            for what, known in ((datagram[start : start + 32], self.ephemerals), (datagram[4:8], self.indices)):
                assert what not in known, "ephemeral keys and indices are fresh each time"
                known.add(what)

    def look_at_data(self, seen: Seen) -> None:
        assert len(seen.datagram) % 16 == 0, "lengths are rounded"
        assert seen.traffic_class < 4, "nothing of the inner traffic class but ECN"
        index, counter = unpack_from("<IQ", seen.datagram, 4)
        session = (seen.destination, index)
        assert (*session, counter) not in self.nonces, "a nonce is used once"
        self.nonces.add((*session, counter))
        assert counter == self.counters.get(session, -1) + 1, "counters count"
        self.counters[session] = counter


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
