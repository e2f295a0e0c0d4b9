"""Transport data, and what strangers, attackers and faulty peers may send (kernel receive.c, send.c)."""

from __future__ import annotations

from ipaddress import ip_network
from random import Random
from typing import Any

import pytest

from tests.support.packets import ipv4_packet, ipv6_packet
from tests.support.world import Host, World
from wgpy import burst
from wgpy.burst import Bodies, Burst, Datagrams, bodies
from wgpy.constants import MESSAGE_INITIATION, MESSAGE_RESPONSE, MESSAGE_TRANSPORT
from wgpy.device.changes import AllowedIPChange, DeviceChange
from wgpy.device.effects import DropReason, EventKind
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey

ELSEWHERE = Endpoint("198.51.100.7", 4444)


def drops(a: Host, b: Host) -> dict[str, int]:
    """What `a` has dropped, with `b` as the peer or with none."""
    return {**a.device.status().drops, **a.peer(b).drops}


def captured(world: World, a: Host, b: Host, payload: bytes = b"hello") -> bytes:
    """A datagram from a to b that never arrived."""
    world.link.cut = True
    world.send(a, b, payload)
    world.link.cut = False
    return world.eve[-1].datagram


# Inbound.


def test_a_replayed_datagram_is_delivered_once_and_does_not_roam() -> None:
    world = World()
    a, b = world.connected()
    datagram = captured(world, a, b)
    world.arrive(b, datagram, a.endpoint)
    world.arrive(b, datagram, ELSEWHERE)
    assert len(b.received) == 1
    assert drops(b, a) == {DropReason.REPLAYED: 1}
    assert b.peer(a).endpoint == a.endpoint


def test_a_forged_datagram_neither_uses_up_its_counter_nor_roams() -> None:
    world = World()
    a, b = world.connected()
    datagram = captured(world, a, b)
    forged = datagram[:20] + bytes([datagram[20] ^ 1]) + datagram[21:]
    world.arrive(b, forged, ELSEWHERE)
    assert drops(b, a) == {DropReason.INVALID_TAG: 1}
    world.arrive(b, datagram, a.endpoint)
    assert len(b.received) == 1
    assert b.peer(a).endpoint == a.endpoint


def test_the_peer_is_where_its_last_authenticated_datagram_came_from() -> None:
    world = World()
    a, b = world.connected()
    world.arrive(b, captured(world, a, b), ELSEWHERE)
    assert b.peer(a).endpoint == ELSEWHERE
    assert b.happened(EventKind.ENDPOINT_MOVED) == 1
    world.send(b, a)
    assert world.eve[-1].destination == ELSEWHERE


def test_a_new_local_address_is_remembered_but_is_no_roaming() -> None:
    world = World()
    a, b = world.connected()
    source = a.endpoint._replace(source=b"\x0a\x01\x02\x03", source_ifindex=7)
    world.arrive(b, captured(world, a, b), source)
    assert b.peer(a).endpoint == source
    assert b.events == []
    assert list(b.device.sources()) == [(a.public_key, source)]
    b.device.forget_source(a.public_key)
    assert b.peer(a).endpoint == a.endpoint
    assert list(b.device.sources()) == []


@pytest.mark.parametrize("change", [DeviceChange(listen_port=7), DeviceChange(fwmark=7)])
def test_another_port_or_mark_lets_the_routes_choose_the_local_address(change: DeviceChange) -> None:
    world = World()
    a, b = world.connected()
    source = a.endpoint._replace(source=b"\x0a\x01\x02\x03", source_ifindex=7)
    world.arrive(b, captured(world, a, b), source)
    assert b.peer(a).endpoint == source
    b.device.configure(change, world.now)
    assert b.peer(a).endpoint == a.endpoint


def test_a_source_address_that_is_not_the_peers_is_dropped_but_still_roams() -> None:
    world = World()
    a, b = world.connected()
    world.link.cut = True
    world.inject(a, ipv4_packet("10.9.9.9", b.inner, b"not mine"))
    world.arrive(b, world.eve[-1].datagram, ELSEWHERE)
    assert b.received == []
    assert drops(b, a) == {DropReason.DISALLOWED_SOURCE: 1}
    assert b.peer(a).endpoint == ELSEWHERE


def test_a_more_specific_prefix_of_another_peer_takes_precedence() -> None:
    world = World()
    a, b, c = world.host("a"), world.host("b"), world.host("c")
    world.introduce(a, b)
    world.introduce(c, b)
    world.configure(b, public_key=a.public_key, allowed_ips=(AllowedIPChange(ip_network("10.0.0.0/24")),))
    world.send(a, b)
    world.inject(a, ipv4_packet(c.inner, b.inner))
    world.inject(a, ipv4_packet("10.0.0.77", b.inner))
    world.run(1)
    assert [packet[12:16] for packet in b.received] == [bytes([10, 0, 0, 1]), bytes([10, 0, 0, 77])]


@pytest.mark.parametrize(
    "plaintext",
    [b"\x00" * 16, b"\x45" + bytes(15), b"\x65" + bytes(31), b"\x45\x00\xff\xff" + bytes(28), b"\xff" * 48],
)
def test_data_that_is_not_an_ip_packet_is_dropped(plaintext: bytes) -> None:
    world = World()
    a, b = world.connected()
    sender = a.device._peers[b.public_key].keypairs.current
    assert sender is not None
    burst = Burst.of(plaintext)
    sender.seal(burst)
    world.arrive(b, bytes(burst.view), a.endpoint)
    assert b.received == []
    assert drops(b, a) == {DropReason.INVALID_PACKET: 1}


def test_padding_is_removed_by_the_packets_own_length() -> None:
    world = World()
    a, b = world.connected()
    for size in range(40):
        world.send(a, b, b"x" * size)
    world.run(1)
    assert [len(packet) for packet in b.received] == [20 + size for size in range(40)]
    assert {len(seen.datagram) % 16 for seen in world.eve} == {0}


def test_padding_stops_at_the_mtu() -> None:
    world = World()
    a, b = world.connected()
    a.device.mtu = 1420
    for size in (1400, 1420):
        world.send(a, b, b"x" * (size - 20))
    assert [len(seen.datagram) for seen in world.eve] == [32 + 1408, 32 + 1420]


@pytest.mark.parametrize("waits", [True, False], ids=["for a key", "for nothing"])
def test_a_packet_in_a_burst_is_as_long_as_its_slot(waits: bool) -> None:
    """The reader that made the burst has chosen the padding."""
    world = World()
    a, b = world.pair() if waits else world.connected()
    packet = ipv4_packet(a.inner, b.inner, bytes(1277))
    world.inject(a, Burst.of(packet, 1299))
    world.run(1)
    assert [bytes(received) for received in b.received] == [packet]
    assert [len(seen.datagram) for seen in world.eve if seen.kind == MESSAGE_TRANSPORT] == [1299 + 32]


def test_a_burst_of_many_datagrams_is_opened_in_one_call() -> None:
    world = World()
    a, b = world.connected()
    packet = ipv4_packet(a.inner, b.inner, b"y" * 100)
    stride = 16 + 128 + 16
    view = memoryview(bytearray(stride * 5))
    for i in range(5):
        view[i * stride + 16 : i * stride + 16 + 120] = packet
    effects = a.device.send(Burst(view, stride, [120] * 5), world.now)
    (transmit,) = effects.transmits
    assert len(transmit.datagrams) == 5
    view[2 * stride + 30] ^= 1
    received = b.device.receive(transmit.datagrams, a.endpoint, world.now)
    (delivery,) = received.deliveries
    assert [bytes(p) for p in delivery.packets()] == [packet] * 4
    assert delivery.lengths == [120, 120, 0, 120, 120]
    assert drops(b, a) == {DropReason.INVALID_TAG: 1}


def test_stale_bytes_in_the_buffer_are_never_sent_as_padding() -> None:
    world = World()
    a, b = world.connected()
    packet = ipv4_packet(a.inner, b.inner, b"z")
    view = memoryview(bytearray(b"\xaa" * (16 + 32 + 16)))
    view[16 : 16 + 21] = packet
    effects = a.device.send(Burst(view, 64, [21]), world.now)
    keypair = b.device._peers[a.public_key].keypairs.current
    assert keypair is not None
    datagram = bytes(effects.transmits[0].datagrams.view)
    plaintext = keypair.receiving.decrypt(bytes(4) + datagram[8:16], datagram[16:], None)
    assert plaintext == packet + bytes(11)


def test_stale_bytes_are_not_sent_behind_any_packet_of_a_burst() -> None:
    """Packets of different lengths may share a burst, if they are as long when padded."""
    world = World()
    a, b = world.connected()
    packets = [ipv4_packet(a.inner, b.inner, bytes(size)) for size in (12, 5, 12)]
    view = memoryview(bytearray(b"\xaa" * (3 * 64)))
    for i, packet in enumerate(packets):
        view[i * 64 + 16 : i * 64 + 16 + len(packet)] = packet
    effects = a.device.send(Burst(view, 64, [32, 25, 32]), world.now)
    keypair = b.device._peers[a.public_key].keypairs.current
    assert keypair is not None
    for packet, datagram in zip(packets, map(bytes, effects.transmits[0].datagrams), strict=True):
        plaintext = keypair.receiving.decrypt(bytes(4) + datagram[8:16], datagram[16:], None)
        assert plaintext == packet.ljust(32, b"\0")


@pytest.mark.parametrize(
    "datagram",
    [b"", b"\x01", bytes(31), bytes(148), b"\x01\x00\x00\x01" + bytes(144), b"\x01" + bytes(146), b"\x01" + bytes(148)],
)
def test_unknown_datagrams_are_counted(datagram: bytes) -> None:
    world = World()
    a, _ = world.connected()
    world.arrive(a, datagram or b"\x00", ELSEWHERE)
    assert a.device.status().drops == {DropReason.MALFORMED: 1}
    assert world.eve == []


def test_random_datagrams_of_every_kind_and_length_are_dropped_without_an_answer() -> None:
    world = World()
    a, b = world.connected()
    random = Random(7)
    before = a.peer(b)
    for number in range(3000):
        body = random.randbytes(random.choice([0, 12, 28, 60, 88, 144, 200, 1500]))
        world.arrive(a, bytes([number % 6, 0, 0, 0]) + body, ELSEWHERE)
    assert world.eve == []
    assert a.received == []
    assert a.peer(b) == before


def test_a_replayed_initiation_is_not_answered() -> None:
    world = World()
    a, b = world.pair()
    world.send(a, b)
    world.run(1)
    initiation = next(seen for seen in world.eve if seen.kind == MESSAGE_INITIATION)
    world.eve.clear()
    world.run(10)
    world.arrive(b, initiation.datagram, ELSEWHERE)
    assert b.peer(a).drops[DropReason.REPLAYED_INITIATION] == 1
    assert MESSAGE_RESPONSE not in [seen.kind for seen in world.eve]
    assert b.peer(a).endpoint == a.endpoint


def test_a_device_that_goes_on_for_another_refuses_what_that_one_has_answered() -> None:
    """As a worker's process that replaces a dead one. Otherwise a replay would move the peer to the attacker."""
    world = World()
    a, b = world.pair()
    world.send(a, b)
    world.run(1)
    initiation = next(seen for seen in world.eve if seen.kind == MESSAGE_INITIATION)
    timestamp = b.device.last_initiation(a.public_key)
    assert a.device.last_initiation(b.public_key) == bytes(12)
    again = world.host("again")
    again.device.configure(DeviceChange(private_key=b.private_key), world.now)
    world.introduce(again, a)
    again.device.refuse_initiations(a.public_key, timestamp)
    again.device.refuse_initiations(a.public_key, bytes(12))
    again.device.refuse_initiations(PrivateKey.generate().public_key, timestamp)  # nobody knows that one
    world.arrive(again, initiation.datagram, ELSEWHERE)
    assert again.peer(a).drops[DropReason.REPLAYED_INITIATION] == 1
    assert again.peer(a).endpoint == a.endpoint
    assert again.device.last_initiation(a.public_key) == timestamp


def test_initiations_of_one_peer_are_consumed_at_most_every_20_ms() -> None:
    world = World()
    a, b = world.pair()
    peer = a.device._peers[b.public_key]
    initiations = []
    world.link.cut = True
    for _ in range(3):
        peer.handshake_sent_at = float("-inf")
        world.send(a, b)
        initiations.append(world.eve[-1].datagram)
        world.run(0.5)
    world.arrive(b, initiations[0], a.endpoint)
    world.now += 0.019
    world.arrive(b, initiations[1], a.endpoint)
    assert b.peer(a).drops == {DropReason.INITIATION_FLOOD: 1}
    world.now += 0.002
    world.arrive(b, initiations[2], a.endpoint)
    assert [seen.kind for seen in world.eve].count(MESSAGE_RESPONSE) == 2


def test_a_late_response_to_an_older_initiation_is_dropped() -> None:
    world = World()
    a, b = world.pair()
    world.link.latency = 3.0
    world.send(a, b)
    world.run(20)
    assert a.device.status().drops.get(DropReason.UNKNOWN_INDEX, 0) >= 1
    assert a.happened(EventKind.HANDSHAKE_COMPLETED) == 0
    world.link.latency = 0.01
    world.run(10)
    assert a.happened(EventKind.HANDSHAKE_COMPLETED) >= 1


def test_a_stranger_is_not_answered() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    world.configure(
        a, public_key=b.public_key, endpoint=b.endpoint, allowed_ips=(AllowedIPChange(ip_network(b.inner)),)
    )
    world.send(a, b)
    world.run(1)
    assert [seen.kind for seen in world.eve] == [MESSAGE_INITIATION]
    assert b.device.status().drops == {DropReason.UNKNOWN_PEER: 1}


# Handshakes that are refused.


def captured_initiation(world: World, a: Host, b: Host) -> bytes:
    world.link.cut = True
    a.device._peers[b.public_key].handshake_sent_at = float("-inf")
    a.device._peers[b.public_key].erase_keys()
    world.send(a, b)
    world.link.cut = False
    return world.eve[-1].datagram


def test_without_load_mac2_does_not_matter() -> None:
    world = World()
    a, b = world.pair()
    message = captured_initiation(world, a, b)
    world.arrive(b, message[:-16] + b"\xff" * 16, a.endpoint)
    assert world.eve[-1].kind == MESSAGE_RESPONSE


def test_a_wrong_mac1_costs_nothing_and_is_never_answered() -> None:
    world = World()
    a, b = world.pair()
    message = bytearray(captured_initiation(world, a, b))
    message[116] ^= 1
    world.eve.clear()
    for _ in range(600):
        world.arrive(b, bytes(message), a.endpoint)
    assert world.eve == []
    assert b.device.status().drops == {DropReason.INVALID_MAC1: 600}


# Outbound.


def test_a_packet_that_is_not_ip_is_dropped() -> None:
    world = World()
    a, b = world.connected()
    for packet in (b"", b"\x00" * 40, b"\x45" * 19, b"\x60" * 39):
        world.inject(a, packet)
    assert world.eve == []
    assert drops(a, b) == {DropReason.NOT_IP: 4}


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_that_no_peer_takes_is_answered_with_unreachable(version: int) -> None:
    world = World()
    a, b = world.connected()
    if version == 4:
        world.inject(a, ipv4_packet(a.inner, "10.77.0.1", b"x"))
        (answer,) = a.received
        assert (answer[9], answer[20], answer[21], answer[16:20]) == (1, 3, 1, bytes([10, 0, 0, 1]))
    else:
        world.inject(a, ipv6_packet("fd00::1", "fd00::99", b"x"))
        (answer,) = a.received
        assert (answer[6], answer[40], answer[41]) == (58, 1, 3)
    assert drops(a, b) == {DropReason.NO_PEER: 1}


def test_a_datagram_that_is_routed_back_into_the_tunnel_is_not_sealed_again() -> None:
    """The endpoint is routed to the peer itself: each round would add 60 bytes, then fragments, without end."""
    world = World()
    a, b = world.connected()
    looped = ipv4_packet(a.inner, b.inner, bytes(8) + captured(world, a, b))
    ipv6 = ip_network("fd00::2")
    world.configure(a, public_key=b.public_key, allowed_ips=(AllowedIPChange(ipv6),))
    looped6 = ipv6_packet("fd00::1", "fd00::2", bytes(8) + captured(world, a, b))
    fragment6 = looped6[:6] + bytes([44]) + looped6[7:40] + bytes([17, 0, 0, 1, 0, 0, 0, 1]) + looped6[40:]
    world.eve.clear()
    for packet in (looped, looped6, fragment6):
        world.inject(a, packet)
    assert world.eve == []
    assert a.peer(b).drops == {DropReason.ROUTING_LOOP: 3}
    another = bytearray(looped)
    another[32] ^= 1  # somebody else's session, by its index
    later = looped6[:6] + bytes([44]) + looped6[7:40] + bytes([17, 0, 0, 8, 0, 0, 0, 1]) + looped6[40:]
    for packet in (bytes(another), looped[:6] + b"\0\1" + looped[8:], later, looped6[:40]):
        world.inject(a, packet)
    assert [seen.kind for seen in world.eve] == [MESSAGE_TRANSPORT] * 4


def test_a_packet_for_a_peer_without_endpoint_is_answered_with_unreachable() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    world.introduce(a, b, one_way=True)
    world.send(b, a)
    assert world.eve == []
    assert b.received[0][20:22] == bytes([3, 1])
    assert b.peer(a).drops == {DropReason.NO_ENDPOINT: 1}


def test_unreachable_answers_are_rate_limited() -> None:
    world = World()
    a, _ = world.connected()
    for _ in range(100):
        world.inject(a, ipv4_packet(a.inner, "10.77.0.1"))
    assert len(a.received) == 5


@pytest.mark.parametrize(("inner", "outer"), [(0, 0), (1, 1), (2, 2), (3, 2)])
def test_the_ecn_field_is_copied_out_and_nothing_else_of_the_traffic_class(inner: int, outer: int) -> None:
    world = World()
    a, b = world.connected()
    world.inject(a, ipv4_packet(a.inner, b.inner, tos=0xB8 | inner))
    assert world.eve[-1].traffic_class == outer


@pytest.mark.parametrize(
    ("inner", "outer", "arrives"), [(2, 3, 3), (1, 3, 3), (0, 3, 0), (2, 1, 1), (2, 0, 2), (3, 0, 3)]
)
def test_congestion_marked_outside_is_marked_inside(inner: int, outer: int, arrives: int) -> None:
    world = World()
    a, b = world.connected()
    world.link.cut = True
    world.inject(a, ipv4_packet(a.inner, b.inner, tos=0xB8 | inner))
    world.arrive(b, world.eve[-1].datagram, a.endpoint, ecn=outer)
    (packet,) = b.received
    assert packet == ipv4_packet(a.inner, b.inner, tos=0xB8 | arrives)


def test_nothing_passes_while_the_interface_is_down() -> None:
    world = World()
    a, b = world.connected()
    datagram = captured(world, b, a)
    a.device.stop()
    world.eve.clear()
    world.send(a, b)
    world.arrive(a, datagram, b.endpoint)
    assert (world.eve, a.received) == ([], [])
    assert drops(a, b) == {DropReason.INTERFACE_DOWN: 2}


def test_a_datagram_may_hold_transport_data_for_several_sessions() -> None:
    world = World()
    a, b = world.connected()
    one = captured(world, a, b)
    world.run(130)
    world.send(a, b)
    world.run(1)  # the rekey it started is done
    two = captured(world, a, b)
    assert one[4:8] != two[4:8]
    assert {one[:4], two[:4]} == {MESSAGE_TRANSPORT.to_bytes(4, "little")}
    b.received.clear()
    effects = b.device.receive(Datagrams(memoryview(bytearray(one + two)), len(one)), a.endpoint, world.now)
    world.do(b, effects)
    assert len(b.received) == 2


def test_many_short_runs_cost_no_more_than_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index is not authenticated: anyone who has seen one can put it into every second datagram."""
    world = World()
    a, b = world.connected()
    datagram = captured(world, a, b)
    cut: list[int] = []

    def counting(view: memoryview, *rest: Any) -> Bodies:
        cut.append(len(view))
        return bodies(view, *rest)

    monkeypatch.setattr(burst, "bodies", counting)
    datagrams = memoryview(bytearray((datagram[:-1] + b"x" + bytes(len(datagram))) * 100))
    b.device.receive(Datagrams(datagrams, len(datagram)), a.endpoint, world.now)
    assert drops(b, a) == {DropReason.MALFORMED: 100, DropReason.INVALID_TAG: 100}
    assert cut == [len(datagrams)]
