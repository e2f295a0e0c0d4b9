"""Keys and peers set, changed and removed while Devices run on a virtual clock (kernel netlink.c, device.c)."""

from __future__ import annotations

import os
from functools import partial

from tests.device.test_sessions import connected, kinds
from tests.support.world import World
from wgpy.constants import (
    MESSAGE_INITIATION,
    MESSAGE_TRANSPORT,
)
from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.device.device import PEERS_AT_ONCE, Device
from wgpy.device.effects import DropReason, EventKind
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey, PublicKey


def test_turning_persistent_keepalive_on_sends_at_once_and_changing_it_does_not() -> None:
    world = World()
    a, b = connected(world)
    world.eve.clear()
    world.configure(a, public_key=b.public_key, persistent_keepalive=25)
    assert len(world.eve) == 1
    world.configure(a, public_key=b.public_key, persistent_keepalive=15)
    assert len(world.eve) == 1


def test_coming_up_sends_to_peers_with_a_persistent_keepalive() -> None:
    world = World()
    a, b = world.host("a", up=False), world.host("b")
    world.introduce(a, b)
    world.configure(a, public_key=b.public_key, persistent_keepalive=25)
    assert world.eve == []
    world.do(a, a.device.start(world.now))
    assert kinds(world) == [MESSAGE_INITIATION]


def test_coming_up_or_a_new_key_starts_a_few_handshakes_for_each_call() -> None:
    """A thousand handshakes would keep the event loop waiting for 200 ms."""
    peers = [PublicKey(number.to_bytes(32, "big")) for number in range(2, 102)]
    change = DeviceChange(
        private_key=PrivateKey(b"k" * 32),
        peers=tuple(
            PeerChange(public_key=key, endpoint=Endpoint("192.0.2.9", 9), persistent_keepalive=25) for key in peers
        ),
    )
    device = Device(random=os.urandom, wall_clock=lambda: 0)
    device.configure(change, 0.0)
    another = DeviceChange(private_key=PrivateKey(b"l" * 32))
    for now, call in ((1.0, device.start), (2.0, partial(device.configure, another))):
        greeted = [transmit.public_key for transmit in call(now).transmits]
        assert len(greeted) == PEERS_AT_ONCE
        while (due := device.next_timeout()) is not None and due <= now:
            some = device.handle_timeout(now).transmits
            assert len(some) <= PEERS_AT_ONCE
            greeted += [transmit.public_key for transmit in some]
        assert sorted(map(str, greeted)) == sorted(map(str, peers))


def test_going_down_ends_sessions_but_keeps_the_configuration() -> None:
    world = World()
    a, b = connected(world)
    a.device.stop()
    assert a.device.next_timeout() is None
    assert len(a.device._indices) == 0
    world.do(a, a.device.start(world.now))
    packet = world.send(a, b)
    world.run(1)
    assert b.received == [packet]


def test_without_a_private_key_nothing_is_initiated() -> None:
    world = World()
    a, b = world.pair()
    a.device.configure(DeviceChange(private_key=PrivateKey(bytes(32))), world.now)
    world.send(a, b)
    world.run(30)
    assert world.eve == []


def test_setting_a_private_key_sends_the_packets_that_waited() -> None:
    world = World()
    a, b = world.pair()
    world.do(a, a.device.configure(DeviceChange(private_key=PrivateKey(bytes(32))), world.now))
    packet = world.send(a, b)
    world.do(a, a.device.configure(DeviceChange(private_key=a.private_key), world.now))
    world.run(1)
    assert b.received == [packet]


def test_our_own_key_cannot_be_a_peer_and_setting_it_removes_the_peer() -> None:
    world = World()
    a, b = world.pair()
    world.configure(a, public_key=a.public_key)
    assert [peer.public_key for peer in a.device.status().peers] == [b.public_key]
    a.device.configure(DeviceChange(private_key=b.private_key), world.now)
    assert a.device.status().peers == ()


def test_a_new_private_key_stops_sending_under_old_keys_but_still_receives() -> None:
    world = World()
    a, b = connected(world)
    a.device.configure(DeviceChange(private_key=PrivateKey(b"n" * 32)), world.now)
    packet = world.send(b, a)
    world.run(0.1)
    assert a.received == [packet]
    world.eve.clear()
    world.send(a, b)
    assert kinds(world) == [MESSAGE_INITIATION]


def test_the_same_private_key_changes_nothing() -> None:
    world = World()
    a, b = connected(world)
    a.device.configure(DeviceChange(private_key=a.private_key), world.now)
    world.eve.clear()
    world.send(a, b)
    assert kinds(world) == [MESSAGE_TRANSPORT]


def test_a_changed_peer_keeps_its_session_and_counters() -> None:
    world = World()
    a, b = connected(world)
    before = a.peer(b)
    change = PeerChange(public_key=b.public_key, replace_allowed_ips=False, persistent_keepalive=0)
    a.device.configure(DeviceChange(peers=(change,)), world.now)
    assert a.peer(b) == before
    world.eve.clear()
    world.send(a, b)
    assert kinds(world) == [MESSAGE_TRANSPORT]


def test_removing_a_peer_removes_its_timers_and_indices() -> None:
    world = World()
    a, b = connected(world)
    world.configure(a, public_key=b.public_key, remove=True)
    assert a.device.status().peers == ()
    assert a.device.next_timeout() is None
    assert len(a.device._indices) == 0
    world.send(b, a)
    world.run(1)
    assert a.received == []
    assert a.device.status().drops[DropReason.UNKNOWN_INDEX] == 1


def test_update_only_does_not_add_a_peer() -> None:
    world = World()
    a = world.host("a")
    world.configure(a, public_key=PublicKey(b"u" * 32), update_only=True, persistent_keepalive=1)
    assert a.device.status().peers == ()


def test_a_peer_moved_to_another_endpoint_gets_a_handshake_there_at_once() -> None:
    world = World()
    a, b = connected(world)
    world.eve.clear()
    elsewhere = Endpoint("198.51.100.9", 9)
    world.configure(a, public_key=b.public_key, endpoint=b.endpoint)
    assert world.eve == [], "it is there already"
    world.configure(a, public_key=b.public_key, endpoint=elsewhere)
    assert [(seen.kind, seen.destination) for seen in world.eve] == [(MESSAGE_INITIATION, elsewhere)]


def test_handshakes_with_a_peer_that_is_moved_to_and_fro_still_end() -> None:
    world = World()
    a, b = world.pair()
    world.link.cut = True
    world.send(a, b)
    for n in range(20):
        world.run(15)
        world.configure(a, public_key=b.public_key, endpoint=Endpoint("198.51.100.1", 1 + n % 2))
    assert a.happened(EventKind.HANDSHAKE_ABANDONED) >= 1
