"""EventKind.PEER_HEARD: a peer has sent something after silence. Both ends, in virtual time."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tests.support.world import Host, World
from wgpy.constants import MESSAGE_INITIATION, MESSAGE_RESPONSE, REJECT_AFTER_TIME
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.effects import EventKind
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey

BACK = [EventKind.HANDSHAKE_COMPLETED, EventKind.PEER_HEARD]
Sessions = dict[PublicKey, tuple[Endpoint, float]]
ELSEWHERE = Endpoint("203.0.113.9", 9)


def connected(world: World) -> tuple[Host, Host]:
    """Two hosts with a confirmed session, whose events so far are forgotten."""
    a, b = world.pair()
    world.send(a, b)
    assert world.run_until(lambda: b.received != [])
    a.events.clear()
    b.events.clear()
    return a, b


def heard(*hosts: Host) -> list[int]:
    return [host.happened(EventKind.PEER_HEARD) for host in hosts]


def restart(world: World, host: Host, other: Host, sessions: Sessions | None = None) -> None:
    """Replace a host's device by that of a new process, which remembers nothing but `sessions`."""
    host.device = world.device(lambda: world.wall_ns(host))
    if sessions is not None:
        host.device.resume(host.public_key, sessions)
    peer = PeerChange(public_key=other.public_key, allowed_ips=(AllowedIPChange(ip_network(other.inner)),))
    host.device.configure(DeviceChange(private_key=host.private_key, peers=(peer,)), world.now)
    world.do(host, host.device.start(world.now))
    host.events.clear()


def test_both_ends_hear_the_other_for_the_first_time_right_after_the_handshake() -> None:
    world = World()
    a, b = world.pair()
    world.send(a, b)
    world.run(10)
    for host, other in ((a, b), (b, a)):
        assert [event.kind for event in host.events] == BACK
        assert host.events[1] == (EventKind.PEER_HEARD, other.public_key, other.endpoint, None)


@pytest.mark.parametrize("keepalive", [0, 25])
def test_no_peer_is_heard_anew_while_it_sends_data_or_keepalives(keepalive: int) -> None:
    """Over an hour, only one end sends data, and the other its passive keepalives; or both send keepalives only."""
    world = World()
    a, b = connected(world)
    world.configure(a, public_key=b.public_key, persistent_keepalive=keepalive)
    world.configure(b, public_key=a.public_key, persistent_keepalive=keepalive)
    for _ in range(360):
        if not keepalive:
            world.send(a, b)
        world.run(10)
    assert min(host.happened(EventKind.HANDSHAKE_COMPLETED) for host in (a, b)) >= 20
    assert heard(a, b) == [0, 0]


@pytest.mark.parametrize("initiates", [True, False])
@pytest.mark.parametrize(("short_of", "is_silence"), [(0.01, False), (-0.01, True)])
def test_silence_is_reject_after_time_without_a_packet(initiates: bool, short_of: float, is_silence: bool) -> None:
    """Counted from the last packet, however old its session was, to the one that confirms the new session."""
    world = World()
    a, b = connected(world)
    world.run(100)
    b.received.clear()
    world.send(a, b)
    assert world.run_until(lambda: b.received != [])
    last = world.now
    host, handshake = (b, 2 * world.link.latency) if initiates else (a, 3 * world.link.latency)
    world.run(last + REJECT_AFTER_TIME - handshake - short_of - world.now)
    world.send(host, a if initiates else b)
    world.run(1)
    assert [event.kind for event in b.events] == (BACK if is_silence else BACK[:1])
    assert a.happened(EventKind.HANDSHAKE_COMPLETED) == 1


def test_however_many_sessions_a_peer_begins_it_is_heard_once_in_180_seconds() -> None:
    world = World()
    a, b = connected(world)
    for _ in range(600):
        a.device.forget_sessions()
        world.send(a, b)
        world.run(1)
    assert b.happened(EventKind.HANDSHAKE_COMPLETED) == 600
    assert heard(a, b) == [0, 0]


def test_both_ends_begin_at_once_and_each_hears_the_other_once() -> None:
    world = World()
    a, b = connected(world)
    world.run(200)
    world.send(a, b)
    world.send(b, a)
    world.run(30)
    assert heard(a, b) == [1, 1]


def test_neither_replays_nor_forgeries_are_heard() -> None:
    """An eavesdropper sends all that was ever sent again, to either end, unchanged and with a bit changed."""
    world = World()
    a, b = connected(world)
    world.run(100)
    world.send(b, a)
    world.run(400)
    recorded = world.eve[:]
    for seen in recorded:
        for host in (a, b):
            for datagram in (seen.datagram, seen.datagram[:-1] + bytes([seen.datagram[-1] ^ 1])):
                world.arrive(host, datagram, ELSEWHERE)
                world.run(1)
    assert len({seen.kind for seen in recorded}) == 3
    assert heard(a, b) == [0, 0]
    world.send(a, b)  # nor do they count as packets that end the silence
    world.run(1)
    assert heard(a, b) == [1, 1]


def test_a_handshake_that_the_initiator_does_not_confirm_is_not_heard() -> None:
    """A new process knows no timestamps yet, so it answers an initiation that somebody recorded."""
    world = World()
    a, b = connected(world)
    recorded = next(seen.datagram for seen in world.eve if seen.kind == MESSAGE_INITIATION)
    restart(world, b, a)
    world.eve.clear()
    world.arrive(b, recorded, ELSEWHERE)
    world.run(1)
    assert [seen.kind for seen in world.eve] == [MESSAGE_RESPONSE]
    assert b.events == []
    a.device.forget_sessions()
    world.send(a, b)
    world.run(1)
    assert heard(b) == [1]


@pytest.mark.parametrize(("age", "expected"), [(170.0, 0), (185.0, 1)])
def test_a_new_process_that_resumes_a_session_knows_that_the_peer_was_heard_when_it_began(
    age: float, expected: int
) -> None:
    world = World()
    a, b = connected(world)
    a.device.forget_sessions()
    restart(world, b, a, {a.public_key: (a.endpoint, world.now - age)})
    world.send(a, b)
    world.run(1)
    assert b.happened(EventKind.HANDSHAKE_COMPLETED) >= 1
    assert heard(b) == [expected]


@pytest.mark.parametrize(("asleep", "expected"), [(60, 0), (200, 1)])
def test_a_suspend_is_silence_if_it_is_long_enough(asleep: int, expected: int) -> None:
    world = World()
    a, b = connected(world)
    b.asleep = True
    world.run(asleep)
    b.asleep = False
    b.device.forget_sessions()
    a.device.forget_sessions()
    world.send(a, b)
    world.run(1)
    assert b.happened(EventKind.HANDSHAKE_COMPLETED) == 1
    assert heard(b) == [expected]


def test_a_link_that_goes_down_and_up_does_not_forget_who_was_heard() -> None:
    world = World()
    a, b = connected(world)
    b.device.stop()
    world.run(20)
    world.do(b, b.device.start(world.now))
    a.device.forget_sessions()
    world.send(a, b)
    world.run(1)
    assert b.happened(EventKind.HANDSHAKE_COMPLETED) == 1
    assert heard(b) == [0]
