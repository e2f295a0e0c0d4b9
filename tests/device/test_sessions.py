"""Handshakes, keypairs and rekeying between Devices on a virtual clock (kernel noise.c, send.c, receive.c)."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import pairwise

import pytest

from tests.support.bursts import burst_of
from tests.support.packets import ipv4_packet
from tests.support.world import Host, Link, World
from wgpy.constants import (
    HANDSHAKE_TRAFFIC_CLASS,
    MAX_STAGED_PACKETS,
    MESSAGE_INITIATION,
    MESSAGE_RESPONSE,
    MESSAGE_TRANSPORT,
)
from wgpy.device.changes import AllowedIPChange, DeviceChange
from wgpy.device.device import Device
from wgpy.device.effects import DropReason, Effects, EventKind
from wgpy.endpoint import Endpoint
from wgpy.keys import PresharedKey


def kinds(world: World) -> list[int]:
    return [seen.kind for seen in world.eve]


def count(world: World, kind: int) -> int:
    return kinds(world).count(kind)


def connected(world: World) -> tuple[Host, Host]:
    """Two hosts with a confirmed session; `a` initiated it."""
    a, b = world.pair()
    world.send(a, b)
    assert world.run_until(lambda: b.received != [])
    b.received.clear()
    return a, b


def test_the_first_packet_costs_one_initiation_one_response_and_arrives() -> None:
    world = World()
    a, b = world.pair()
    packet = world.send(a, b)
    world.run(1)
    assert b.received == [packet]
    assert kinds(world) == [MESSAGE_INITIATION, MESSAGE_RESPONSE, MESSAGE_TRANSPORT]
    assert [len(seen.datagram) for seen in world.eve] == [148, 92, 32 + 32]
    assert [seen.traffic_class for seen in world.eve] == [HANDSHAKE_TRAFFIC_CLASS, HANDSHAKE_TRAFFIC_CLASS, 0]
    assert a.happened(EventKind.HANDSHAKE_COMPLETED) == b.happened(EventKind.HANDSHAKE_COMPLETED) == 1


def test_the_responder_may_not_send_before_the_key_is_confirmed() -> None:
    world = World()
    a, b = world.pair()
    world.configure(a, public_key=b.public_key, persistent_keepalive=25)
    assert world.run_until(lambda: count(world, MESSAGE_RESPONSE) == 1)
    world.send(b, a)
    assert count(world, MESSAGE_TRANSPORT) == 0
    world.run(1)
    assert len(a.received) == 1


def test_a_session_without_data_is_confirmed_by_a_keepalive() -> None:
    world = World()
    a, b = world.pair()
    world.configure(a, public_key=b.public_key, persistent_keepalive=25)
    world.run(1)
    assert [len(seen.datagram) for seen in world.eve if seen.kind == MESSAGE_TRANSPORT] == [32]
    assert b.happened(EventKind.HANDSHAKE_COMPLETED) == 1
    assert b.received == []


def test_traffic_passes_both_ways_and_is_counted_to_the_byte() -> None:
    world = World()
    a, b = connected(world)
    before = a.peer(b), b.peer(a)
    assert (before[0].tx_bytes, before[0].rx_bytes) == (148 + 64, 92)
    assert (before[1].tx_bytes, before[1].rx_bytes) == (92, 148 + 64)
    world.send(b, a, b"x" * 100)
    world.run(1)
    assert len(a.received) == 1
    assert b.peer(a).tx_bytes == before[1].tx_bytes + 32 + 128
    assert a.peer(b).rx_bytes == before[0].rx_bytes + 32 + 128


@pytest.mark.parametrize(("ours", "theirs", "works"), [(1, 1, True), (1, 2, False), (1, 0, False), (0, 1, False)])
def test_a_session_needs_the_same_preshared_key_on_both_sides(ours: int, theirs: int, works: bool) -> None:
    world = World()
    a, b = world.pair()
    world.configure(a, public_key=b.public_key, preshared_key=PresharedKey(bytes([ours]) * 32))
    world.configure(b, public_key=a.public_key, preshared_key=PresharedKey(bytes([theirs]) * 32))
    world.send(a, b)
    world.run(4)
    assert (b.received != []) is works


def test_a_new_preshared_key_takes_effect_at_the_next_handshake() -> None:
    world = World()
    a, b = connected(world)
    world.configure(a, public_key=b.public_key, preshared_key=PresharedKey(b"p" * 32))
    world.send(a, b)
    world.run(1)
    assert len(b.received) == 1


def test_only_the_initiator_rekeys_after_120_seconds_and_nothing_is_lost() -> None:
    world = World()
    a, b = connected(world)
    for _ in range(300):
        world.send(a, b)
        world.send(b, a)
        world.run(1)
    assert (len(a.received), len(b.received)) == (300, 300)
    initiations = [seen for seen in world.eve if seen.kind == MESSAGE_INITIATION]
    assert [seen.source for seen in initiations] == [a.endpoint] * 3
    assert {round(y.at - x.at) for x, y in pairwise(initiations)} <= {120, 121}  # the first packet after the age


def test_an_initiator_that_only_receives_rekeys_once_before_the_key_expires() -> None:
    world = World()
    a, b = connected(world)
    start = world.now
    while world.now < start + 164:
        world.send(b, a)
        world.run(4)
        # a's passive keepalives would rekey at 120 s, so it gets no chance to send any; nor does b miss them
        a.device._peers[b.public_key].timers.send_keepalive_at = float("inf")
        b.device._peers[a.public_key].timers.new_handshake_at = float("inf")
    assert count(world, MESSAGE_INITIATION) == 1
    world.run(3)
    world.send(b, a)
    world.run(1)
    assert count(world, MESSAGE_INITIATION) == 2


def test_keys_older_than_180_seconds_no_longer_encrypt() -> None:
    world = World()
    a, b = connected(world)
    world.link.cut = True
    world.run(181)
    world.eve.clear()
    world.send(a, b)
    assert kinds(world) == [MESSAGE_INITIATION]


def test_keys_older_than_180_seconds_no_longer_decrypt() -> None:
    world = World()
    a, b = connected(world)
    world.link.cut = True
    world.run(20)
    world.send(a, b)
    held_back = world.eve[-1]
    assert held_back.kind == MESSAGE_TRANSPORT
    world.run(150)
    world.arrive(b, held_back.datagram[:-1] + bytes([held_back.datagram[-1] ^ 1]), a.endpoint)
    assert b.peer(a).drops == {DropReason.INVALID_TAG: 1}
    world.run(12)
    world.arrive(b, held_back.datagram, a.endpoint)
    assert b.peer(a).drops[DropReason.EXPIRED_KEY] == 1
    assert b.received == []


def test_an_expired_session_is_replaced_when_there_is_something_to_send() -> None:
    world = World()
    a, b = connected(world)
    world.run(200)
    packet = world.send(b, a)
    world.run(1)
    assert a.received == [packet]


def test_keys_are_erased_540_seconds_after_the_last_session_began() -> None:
    world = World()
    a, b = connected(world)
    began = next(seen.at for seen in world.eve if seen.kind == MESSAGE_RESPONSE)
    world.run(began + 539 - world.now)
    assert a.happened(EventKind.KEYS_ERASED) == 0
    world.run(2)
    assert a.happened(EventKind.KEYS_ERASED) == b.happened(EventKind.KEYS_ERASED) == 1
    assert list(a.device._peers[b.public_key].keypairs) == []
    assert len(a.device._indices) == 0


def test_a_newer_key_does_not_prolong_the_life_of_an_older_one() -> None:
    """The kernel's timer restarts with each session, and would keep the first one's key for 690 seconds here."""
    world = World()
    a, b = connected(world)
    began = next(seen.at for seen in world.eve if seen.kind == MESSAGE_RESPONSE)
    world.run(began + 150 - world.now)
    world.send(a, b)
    world.run(1)
    peers = [a.device._peers[b.public_key], b.device._peers[a.public_key]]
    assert [len(peer.keypairs) for peer in peers] == [2, 2]
    world.run(began + 540.1 - world.now)
    assert [len(peer.keypairs) for peer in peers] == [1, 1]
    assert [len(host.device._indices) for host in (a, b)] == [1, 1]
    world.run(539)
    assert a.happened(EventKind.KEYS_ERASED) == b.happened(EventKind.KEYS_ERASED) == 1


def test_a_keypair_is_renewed_near_its_last_counter_and_refused_at_the_last() -> None:
    world = World()
    a, b = connected(world)
    current = a.device._peers[b.public_key].keypairs.current
    assert current is not None
    world.run(6)
    current.send_counter = 1 << 60
    world.eve.clear()
    world.send(a, b)
    assert kinds(world) == [MESSAGE_TRANSPORT, MESSAGE_INITIATION]
    world.run(6)
    current = a.device._peers[b.public_key].keypairs.current
    assert current is not None
    current.send_counter = (1 << 64) - 1 - 8128 - 1
    world.eve.clear()
    world.send(a, b)
    assert kinds(world) == [MESSAGE_INITIATION]


def test_the_responder_also_renews_a_key_after_too_many_messages() -> None:
    world = World()
    a, b = connected(world)
    world.send(b, a)
    world.run(6)
    current = b.device._peers[a.public_key].keypairs.current
    assert current is not None
    current.send_counter = 1 << 60
    world.eve.clear()
    world.send(b, a)
    assert kinds(world) == [MESSAGE_TRANSPORT, MESSAGE_INITIATION]


def test_unanswered_initiations_go_out_20_times_and_then_stop() -> None:
    world = World()
    a, b = world.pair()
    world.link.cut = True
    world.send(a, b)
    world.run(300)
    times = [seen.at for seen in world.eve]
    assert kinds(world) == [MESSAGE_INITIATION] * 20
    assert all(5.0 <= y - x <= 5.0 + 1 / 3 for x, y in pairwise(times))
    assert a.happened(EventKind.HANDSHAKE_ABANDONED) == 1
    assert a.peer(b).drops[DropReason.HANDSHAKE_ABANDONED] == 1


def test_after_giving_up_the_next_packet_starts_a_new_handshake() -> None:
    world = World()
    a, b = world.pair()
    world.link.cut = True
    world.send(a, b)
    world.run(300)
    world.link.cut = False
    packet = world.send(a, b)
    world.run(1)
    assert b.received == [packet]


def test_a_peer_with_persistent_keepalive_never_gives_up() -> None:
    world = World()
    a, b = world.pair()
    world.link.cut = True
    world.configure(a, public_key=b.public_key, persistent_keepalive=25)
    world.run(3600)
    assert count(world, MESSAGE_INITIATION) > 500  # 20 in 98 s, then 25 s until the next keepalive
    world.link.cut = False
    assert world.run_until(lambda: b.happened(EventKind.HANDSHAKE_COMPLETED) == 1, 40)


def test_the_newest_packets_wait_for_the_handshake() -> None:
    world = World()
    a, b = world.pair()
    packets = [world.send(a, b, number.to_bytes(2, "big")) for number in range(200)]
    world.run(1)
    waited = MAX_STAGED_PACKETS + 1  # room is made only above the limit, as in the kernel
    assert b.received == packets[-waited:]
    assert a.peer(b).drops[DropReason.STAGED_OVERFLOW] == 200 - waited


def test_of_a_burst_longer_than_the_queue_the_first_packets_wait() -> None:
    world = World()
    a, b = world.pair()
    early = [world.send(a, b, bytes([number])) for number in range(MAX_STAGED_PACKETS + 1)]
    packets = [ipv4_packet(a.inner, b.inner, number.to_bytes(2, "big")) for number in range(200)]
    world.inject(a, burst_of(*packets))
    world.run(1)
    assert b.received == [*early[1:], *packets]


def test_both_sides_may_begin_at_once() -> None:
    world = World()
    a, b = world.pair()
    to_b, to_a = world.send(a, b), world.send(b, a)
    world.run(10)
    assert b.received == [to_b]
    assert a.received == [to_a]


def test_unanswered_data_starts_a_handshake_after_15_seconds() -> None:
    world = World()
    a, b = connected(world)
    b.device.stop()  # restarted and forgot
    world.run(12)
    world.eve.clear()
    at = world.now
    world.send(a, b)
    world.run(20)
    initiation = next(seen for seen in world.eve if seen.kind == MESSAGE_INITIATION)
    assert 15.0 <= initiation.at - at <= 15.0 + 1 / 3


@pytest.mark.parametrize("earlier", [False, True])
def test_data_that_did_not_leave_is_neither_counted_nor_expected_to_be_answered(earlier: bool) -> None:
    world = World()
    a, b = connected(world)
    world.send(b, a)
    world.run(1)
    world.link.cut = True
    if earlier:
        world.send(a, b)
        world.run(1)
    before = a.peer(b)
    world.eve.clear()
    (transmit,) = a.device.send(ipv4_packet(a.inner, b.inner), world.now).transmits
    a.device.not_sent(transmit, 1, len(transmit.datagrams.view), DropReason.SEND_REFUSED)
    assert a.peer(b).tx_bytes == before.tx_bytes
    assert a.peer(b).drops == {"send_refused": 1}
    world.run(16)
    initiators = [seen.source for seen in world.eve if seen.kind == MESSAGE_INITIATION]
    assert (a.endpoint in initiators) is earlier


def test_data_is_acknowledged_by_one_keepalive_after_10_seconds_and_keepalives_are_not() -> None:
    world = World()
    _, b = connected(world)
    world.run(60)
    keepalives = [seen for seen in world.eve if seen.kind == MESSAGE_TRANSPORT and len(seen.datagram) == 32]
    assert [seen.source for seen in keepalives] == [b.endpoint]
    assert abs(keepalives[0].at - world.eve[2].at - 10) < 0.1


def test_persistent_keepalive_is_put_off_by_any_traffic() -> None:
    world = World()
    a, b = connected(world)
    world.configure(a, public_key=b.public_key, persistent_keepalive=5)
    world.run(0.1)
    world.eve.clear()
    for _ in range(10):
        world.send(a, b)
        world.run(4)
    assert all(len(seen.datagram) > 32 for seen in world.eve if seen.source == a.endpoint)
    world.eve.clear()
    world.run(30)
    assert all(y.at - x.at < 5.1 for x, y in pairwise(world.eve))
    alone = [seen for seen in world.eve if seen.at > world.now - 16]  # b has nothing to confirm any more
    assert {(seen.source, len(seen.datagram)) for seen in alone} == {(a.endpoint, 32)}
    assert [round(y.at - x.at, 3) for x, y in pairwise(alone)] == [5.0] * 3


@pytest.mark.parametrize("seed", range(8))
def test_traffic_flows_again_on_a_bad_network(seed: int) -> None:
    world = World(seed, Link(latency=0.05, jitter=0.2, loss=0.3, duplication=0.2, corruption=0.1))
    a, b = world.pair()
    sent = set()
    for number in range(200):
        sent.add(world.send(a, b, b"a%d" % number))
        sent.add(world.send(b, a, b"b%d" % number))
        world.run(world.random.random() * 4)
    for host in (a, b):
        assert len(host.received) == len(set(host.received)), "a packet was delivered twice"
        assert set(host.received) <= sent
        assert len(host.received) > 60
    assert {len(seen.datagram) for seen in world.eve if seen.kind == MESSAGE_TRANSPORT} <= {32, 32 + 32}


def test_a_clock_that_steps_back_does_not_lock_us_out() -> None:
    world = World()
    a, b = connected(world)
    world.run(10)
    a.wall_offset_ns = -(10**9) * 86400
    for _ in range(3):
        a.device.forget_sessions()
        a.received.clear()
        world.send(a, b)
        world.run(1)
        world.send(b, a)
        world.run(1)
        assert len(a.received) == 1


def test_the_timestamp_floor_survives_a_restart() -> None:
    world = World()
    a, b = connected(world)
    floor = a.device.timestamp_floor
    assert floor >= world.wall_ns(a) - 3 * 10**9
    again = world.host("again")
    again.wall_offset_ns = -(10**9) * 86400
    again.endpoint, again.inner = Endpoint("192.0.2.77", 1), a.inner
    again.device.configure(DeviceChange(private_key=a.private_key), world.now)
    world.configure(
        again,
        public_key=b.public_key,
        endpoint=b.endpoint,
        allowed_ips=(AllowedIPChange(ip_network(b.inner)),),
    )
    world.send(again, b)
    world.run(1)
    assert drops_of(b, a) == {"replayed_initiation": 1}
    again.device.timestamp_floor = floor + 10**9
    world.run(6)
    assert len(b.received) == 1


def test_a_clock_that_stands_at_the_restored_floor_does_not_lock_us_out() -> None:
    world = World()
    a, b = connected(world)
    floor = a.device.timestamp_floor
    a.device = Device(random=world.random.randbytes, wall_clock=lambda: floor)
    a.device.configure(DeviceChange(private_key=a.private_key), world.now)
    a.device.start(world.now)
    a.device.timestamp_floor = floor
    world.introduce(a, b)
    world.send(a, b)
    world.run(1)
    assert len(b.received) == 1
    assert drops_of(b, a) == {}


def drops_of(host: Host, other: Host) -> dict[str, int]:
    return dict(host.peer(other).drops)


def test_after_a_suspension_there_is_a_new_handshake() -> None:
    world = World()
    a, b = connected(world)
    world.eve.clear()
    a.device.forget_sessions()
    world.send(a, b)
    assert kinds(world) == [MESSAGE_INITIATION]
    world.run(1)
    assert len(b.received) == 1


def test_the_list_of_deadlines_does_not_grow_with_a_peer_that_answers_everything() -> None:
    world = World()
    a, b = connected(world)
    for _ in range(500):
        world.send(a, b)
        world.run(0.03)
        world.do(b, Effects())
        peer = b.device._peers[a.public_key]
        effects = Effects()
        peer.send_keepalive(world.now, effects)
        world.do(b, effects)
        world.run(0.03)
    assert len(a.device._deadlines) < 70
