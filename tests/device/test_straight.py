"""The straight way of most packets: who takes it, who does not, and that it does what the general way does."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from random import Random

import pytest

from tests.support.bursts import burst_of
from tests.support.packets import ipv4_packet, ipv6_packet
from tests.support.world import Host, Link, World
from wgpy.burst import Burst, Datagrams
from wgpy.constants import REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME
from wgpy.device.changes import AllowedIPChange
from wgpy.device.effects import Transmit
from wgpy.endpoint import Endpoint


def sealed(world: World, a: Host, b: Host) -> Datagrams:
    """A datagram from a to b, which has not arrived."""
    fields = a.device.send_straight(Burst.of(ipv4_packet(a.inner, b.inner), 1420), world.now)
    assert fields is not None
    return Transmit(*fields).datagrams


def test_an_ordinary_packet_takes_it_in_both_directions() -> None:
    world = World()
    a, b = world.connected()
    packet = ipv4_packet(a.inner, b.inner, b"payload")
    fields = a.device.send_straight(Burst.of(packet, 1420), world.now)
    assert fields is not None
    transmit = Transmit(*fields)
    assert (transmit.endpoint, transmit.public_key) == (b.endpoint, b.public_key)
    length = b.device.receive_lone(transmit.datagrams, a.endpoint, world.now, 0)
    assert bytes(transmit.datagrams.view[16 : 16 + length]) == packet


def test_a_burst_of_many_takes_it_too_up_to_the_last_counter_before_the_next_handshake() -> None:
    world = World()
    a, b = world.connected()
    packets = [ipv4_packet(a.inner, b.inner, bytes([number])) for number in range(5)]
    session = a.device._peers[b.public_key].keypairs.current
    assert session is not None
    session.send_counter = REKEY_AFTER_MESSAGES - len(packets)
    assert a.device.send_straight(burst_of(*packets), world.now) is not None
    assert session.send_counter == REKEY_AFTER_MESSAGES
    assert a.device.send_straight(burst_of(packets[0]), world.now) is None


def test_a_burst_that_comes_again_is_sealed_and_opened_as_a_new_one() -> None:
    world = World()
    a, b = world.connected()
    burst, fresh = Burst.of(ipv4_packet(a.inner, b.inner, bytes(30)), 1420), bytes(range(30))
    arriving = Datagrams(memoryview(bytearray(burst.view)), burst.stride)
    for number in range(4):
        packet = ipv4_packet(a.inner, b.inner, fresh[number:] + fresh[:number])
        burst.view[:] = b"\xff" * len(burst.view)  # as a longer packet might have left it
        burst.view[16 : 16 + len(packet)] = packet
        fields = a.device.send_straight(burst, world.now)
        assert fields is not None
        arriving.view[:] = Transmit(*fields).datagrams.view
        shorter = b.device.receive_lone(arriving, a.endpoint, world.now, 0)
        assert shorter == len(packet)
        assert bytes(arriving.view[16:-16]) == packet + bytes(len(burst.view) - 32 - len(packet))
        assert list(map(bytes, arriving.opened(shorter).packets())) == [packet]
        assert bytes(arriving.opened(shorter).alone()) == packet
        assert bytes(arriving.opened(shorter - 5).alone()) == packet[:-5]


def no_session(world: World, a: Host, b: Host) -> None:
    a.device.forget_sessions()


def down(world: World, a: Host, b: Host) -> None:
    a.device.stop()


def handshake_due(world: World, a: Host, b: Host) -> None:
    world.now += REKEY_AFTER_TIME


def no_peer(world: World, a: Host, b: Host) -> None:
    allowed_ips = (AllowedIPChange(ip_network(b.inner), remove=True),)
    world.configure(a, public_key=b.public_key, allowed_ips=allowed_ips)


@pytest.mark.parametrize("happens", [no_session, down, handshake_due, no_peer])
def test_a_packet_to_send_that_takes_more_is_left_as_it_was(happens: Callable[[World, Host, Host], None]) -> None:
    world = World()
    a, b = world.connected()
    happens(world, a, b)
    burst, before = Burst.of(ipv4_packet(a.inner, b.inner), 1420), a.device.status()
    untouched = bytes(burst.view)
    assert a.device.send_straight(burst, world.now) is None
    assert (bytes(burst.view), a.device.status()) == (untouched, before)


def test_what_is_no_ip_packet_or_would_go_round_is_left_as_it_was() -> None:
    world = World()
    a, b = world.connected()
    looped = ipv4_packet(a.inner, b.inner, bytes(8) + bytes(sealed(world, a, b).view))
    before = a.device.status()
    for packet in (b"", b"\x45" + bytes(18), b"\x60" + bytes(38), b"\x75" + bytes(40), looped):
        assert a.device.send_straight(Burst.of(packet, 1420), world.now) is None
    assert a.device.status() == before


def moved(world: World, a: Host, b: Host) -> Endpoint:
    return Endpoint("198.51.100.7", 4444)


def forgotten(world: World, a: Host, b: Host) -> Endpoint:
    b.device.forget_sessions()
    return a.endpoint


def asleep(world: World, a: Host, b: Host) -> Endpoint:
    b.device.stop()
    return a.endpoint


@pytest.mark.parametrize("happens", [moved, forgotten, asleep])
def test_a_datagram_that_takes_more_is_left_as_it_was(happens: Callable[[World, Host, Host], Endpoint]) -> None:
    world = World()
    a, b = world.connected()
    datagrams = sealed(world, a, b)
    source = happens(world, a, b)
    untouched, before = bytes(datagrams.view), b.device.status()
    assert b.device.receive_lone(datagrams, source, world.now, 0) == -1
    assert (bytes(datagrams.view), b.device.status()) == (untouched, before)


def test_a_peer_that_is_known_by_an_equal_endpoint_takes_it_from_its_second_packet_on() -> None:
    world = World()
    a, b = world.connected()
    source = Endpoint(*a.endpoint)
    assert b.device.receive_lone(sealed(world, a, b), source, world.now, 0) == -1
    world.arrive(b, bytes(sealed(world, a, b).view), source)
    assert b.device.receive_lone(sealed(world, a, b), source, world.now, 0) > 0


def history(seed: int, *, straight: bool) -> list[object]:
    """What is seen of two hosts that send one another all kinds of packets over a bad line for six minutes."""
    world = World(seed, Link(jitter=0.02, loss=0.05, duplication=0.05, corruption=0.1))
    a, b = world.pair()
    ipv6 = {"a": "fd00::1", "b": "fd00::2"}
    for host, other in ((a, b), (b, a)):
        allowed_ips = (AllowedIPChange(ip_network(ipv6[other.name])),)
        world.configure(host, public_key=other.public_key, allowed_ips=allowed_ips)
        if not straight:
            host.device.send_straight = lambda burst, now: None
            host.device.receive_lone = lambda datagrams, source, now, ecn: -1
    random = Random(seed)
    for _ in range(400):
        host, other = random.choice([(a, b), (b, a)])
        payload = random.randbytes(random.choice([0, 1, 15, 16, 64, 1300]))
        tos = random.randrange(4)
        for _ in range(random.choice([1, 1, 3])):
            if random.random() < 0.5:
                source = random.choice([host.inner, host.inner, other.inner])  # the last is not allowed
                packet = ipv4_packet(source, other.inner, payload, tos=tos)
            else:
                packet = ipv6_packet(ipv6[host.name], ipv6[other.name], payload, traffic_class=tos)
            count = random.choice([1, 1, 7])
            world.inject(host, packet if count == 1 else burst_of(*[packet] * count))
        world.run(random.choice([0.001, 0.1, 2.5]))
    return [world.eve, *([host.received, host.events, host.device.status()] for host in (a, b))]


@pytest.mark.parametrize("seed", range(3))
def test_it_does_what_the_general_way_does(seed: int) -> None:
    assert history(seed, straight=True) == history(seed, straight=False)
