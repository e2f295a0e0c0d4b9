"""Under load, a peer at its own address gets through, whatever others send with that address."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.world import Host, Link, World
from wgpy.burst import Datagrams
from wgpy.constants import (
    INITIATION_SIZE,
    MAC_SIZE,
    MESSAGE_INITIATION,
    MESSAGE_RESPONSE,
    REJECT_AFTER_TIME,
    RESPONSE_SIZE,
)
from wgpy.device.effects import DropReason, Effects, EventKind
from wgpy.endpoint import Endpoint
from wgpy.noise.cookie import CookieStamp

ELSEWHERE = Endpoint("198.51.100.7", 4444)


def forged(world: World, victim: Host, kind: int = MESSAGE_INITIATION, receiver: bytes = bytes(4)) -> bytes:
    """An initiation with a valid mac1, and noise otherwise."""
    size = INITIATION_SIZE if kind == MESSAGE_INITIATION else RESPONSE_SIZE
    begin = kind.to_bytes(4, "little") + bytes(4) + receiver
    body = begin + world.random.randbytes(size - 2 * MAC_SIZE - len(begin))
    return CookieStamp(victim.public_key).stamp(body, world.now)


def each_second(world: World, seconds: int, act: Callable[[], None]) -> None:
    for _ in range(seconds):
        act()
        world.run(1)


def test_a_cookie_is_asked_for_and_the_retransmission_brings_it() -> None:
    world = World()
    a, b = world.pair()
    b.under_load = True
    packet = world.send(a, b)
    world.run(1)
    replies = [seen for seen in world.eve if seen.source == b.endpoint]
    assert [(len(seen.datagram), seen.traffic_class) for seen in replies] == [(64, 0)]
    assert b.device.status().drops == {DropReason.UNDER_LOAD: 1}
    assert a.peer(b).endpoint == b.endpoint
    world.run(6)
    assert b.received == [packet]


def test_forged_initiations_cost_a_peer_no_session() -> None:
    """A thousand a second to each end, from the address of the other, from before the keys are renewed until after."""
    world = World(link=Link(latency=0.001))
    a, b = world.pair()

    def talk() -> None:
        world.send(a, b)
        world.send(b, a)

    def flood_and_talk() -> None:
        for victim, peer, message in ((a, b, to_a), (b, a, to_b)):
            victim.under_load = True
            for number in range(1000):
                world.arrive(victim, message, Endpoint(peer.endpoint.host, 1024 + number))
        talk()

    to_a, to_b = forged(world, a), forged(world, b)
    each_second(world, 110, talk)
    for host in (a, b):
        host.received.clear()
    flooded = int(REJECT_AFTER_TIME) - 110 + 15
    each_second(world, flooded, flood_and_talk)
    assert [len(host.received) for host in (a, b)] == [flooded, flooded]
    assert min(host.happened(EventKind.HANDSHAKE_COMPLETED) for host in (a, b)) == 2


def test_both_ends_under_load_complete_a_handshake_within_two_tries() -> None:
    world = World()
    a, b = world.pair()
    a.under_load = b.under_load = True
    world.send(a, b)
    world.run(7)
    assert len(b.received) == 1
    assert [seen.kind for seen in world.eve].count(MESSAGE_INITIATION) == 2
    assert a.device.status().drops == {}, "the response was awaited"


def test_unsolicited_responses_cost_no_computation_and_get_no_answer() -> None:
    world = World()
    a, _ = world.pair()
    a.under_load = True
    for _ in range(3):
        world.arrive(a, forged(world, a, MESSAGE_RESPONSE, world.random.randbytes(4)), ELSEWHERE)
    assert a.device.status().drops == {DropReason.UNKNOWN_INDEX: 3}
    assert world.eve == []


def test_an_eavesdropper_cannot_make_us_compute_many_responses() -> None:
    """An eavesdropper knows the index of our initiation; after a few responses to it, the next one needs a cookie."""
    world = World()
    a, b = world.pair()
    a.under_load = world.link.cut = True
    world.send(a, b)
    message = forged(world, a, MESSAGE_RESPONSE, world.eve[-1].datagram[4:8])
    for _ in range(1000):
        world.arrive(a, message, ELSEWHERE)
    assert a.peer(b).drops[DropReason.INVALID_HANDSHAKE] == 5
    assert a.device.status().drops == {DropReason.UNDER_LOAD: 995}


def test_each_initiation_of_a_burst_gets_a_cookie() -> None:
    """The address of a burst is not proven either: messages of a peer and forged ones may be in it together."""
    world = World()
    _, b = world.pair()
    burst = b"".join(forged(world, b) for _ in range(8))
    effects: Effects = b.device.receive(
        Datagrams(memoryview(bytearray(burst)), INITIATION_SIZE), ELSEWHERE, world.now, under_load=True
    )
    assert len(effects.transmits) == 8
