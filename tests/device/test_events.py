"""An event is a change of a peer's state: it is reported once, and nothing suppresses it."""

from __future__ import annotations

import pytest

from tests.support.world import Host, World
from wgpy.constants import MESSAGE_INITIATION
from wgpy.device.changes import DeviceChange
from wgpy.device.device import Device
from wgpy.device.effects import DropReason, Effects, EventKind

LOST = [EventKind.HANDSHAKE_UNANSWERED, EventKind.HANDSHAKE_ABANDONED]
BACK = [EventKind.HANDSHAKE_COMPLETED, EventKind.PEER_HEARD]


def kinds(host: Host) -> list[EventKind]:
    return [event.kind for event in host.events]


def initiations(world: World, host: Host) -> int:
    return sum(seen.kind == MESSAGE_INITIATION and seen.source == host.endpoint for seen in world.eve)


@pytest.mark.parametrize("keepalive", [0, 1, 4, 5, 6, 25])
@pytest.mark.parametrize("every", [0.0, 0.7])
def test_an_offline_peer_is_reported_twice_and_tried_again_and_again(keepalive: int, every: float) -> None:
    """Whatever causes the handshakes: retransmission, persistent keepalive or packets."""
    world = World()
    a, b = world.pair()
    world.link.cut = True
    world.configure(a, public_key=b.public_key, persistent_keepalive=keepalive)
    world.send(a, b)
    while world.now < 1000 + 900:
        world.run(every or 900)
        if every:
            world.send(a, b)
    assert kinds(a) == LOST
    assert initiations(world, a) > (100 if keepalive or every else 19)
    assert 0 <= initiations(world, a) - a.unanswered <= 2  # the last is pending; the erasure of keys forgot another
    world.link.cut = False
    world.run(30)
    world.send(a, b)
    world.run(1)
    assert kinds(a)[-2:] == BACK
    a.events.clear()
    world.link.cut = True
    a.device.forget_sessions()
    world.send(a, b)
    world.run(110)
    assert kinds(a)[:2] == LOST  # another change of state


def test_a_peer_moved_to_another_address_does_not_count_as_silent_there() -> None:
    world = World()
    a, b = world.pair()
    world.link.cut = True
    world.send(a, b)
    world.run(1)
    world.configure(a, public_key=b.public_key, endpoint=b.endpoint._replace(port=1))
    assert (initiations(world, a), a.unanswered, a.events) == (2, 0, [])


def restarted_in_the_past(world: World, a: Host, b: Host) -> None:
    """The initiator restarts with a clock in the past, and without the file that has its latest timestamp."""
    a.device = Device(random=world.random.randbytes, wall_clock=lambda: world.wall_ns(a))
    a.wall_offset_ns = -86400 * 10**9
    a.device.configure(DeviceChange(private_key=a.private_key), world.now)
    a.device.start(world.now)
    world.introduce(a, b)


def test_a_peer_whose_clock_went_back_is_reported_once() -> None:
    world = World()
    a, b = world.pair()
    world.send(a, b)
    world.run(10)
    restarted_in_the_past(world, a, b)
    b.events.clear()
    world.send(a, b)
    world.run(90)
    (event,) = b.events
    assert event == (EventKind.HANDSHAKE_REFUSED, a.public_key, a.endpoint, DropReason.REPLAYED_INITIATION)
    assert b.peer(a).drops["replayed_initiation"] > 10
    a.wall_offset_ns = 0  # the clock is set
    world.run(20)
    assert kinds(b) == [EventKind.HANDSHAKE_REFUSED, EventKind.HANDSHAKE_COMPLETED]


def test_replays_do_not_fill_the_log() -> None:
    """For six hours, an eavesdropper replays all that it has recorded."""
    world = World()
    a, b = world.pair()
    world.configure(a, public_key=b.public_key, persistent_keepalive=25)
    told = replayed = 0
    for _ in range(6 * 30):
        world.run(120)
        recorded = [seen for seen in world.eve if seen.kind == MESSAGE_INITIATION][-3:]
        world.eve = recorded[:]
        for seen in recorded * 5:
            world.arrive(b, seen.datagram, seen.source)
            replayed += 1
        told += b.happened(EventKind.HANDSHAKE_REFUSED)
        b.events.clear()
    assert replayed > 2000
    assert 0 < told <= 6 * 3600 / 180


def test_a_datagram_that_the_network_repeats_causes_no_event() -> None:
    world = World()
    a, b = world.pair()
    world.link.duplication = 1.0
    world.send(a, b)
    world.run(1)
    assert b.peer(a).drops["replayed_initiation"] == 1
    assert kinds(b) == BACK


def test_two_machines_with_one_key_are_reported() -> None:
    world = World()
    a, b = world.pair()
    peer = a.device._peers[b.public_key]
    for _ in range(3):
        peer.handshake_sent_at = float("-inf")
        effects = Effects()
        peer.initiate(world.now, effects)
        world.do(a, effects)
        world.run(0.02)
    world.run(1)
    refusals = [event.reason for event in b.events if event.kind is EventKind.HANDSHAKE_REFUSED]
    assert refusals == [DropReason.INITIATION_FLOOD]
