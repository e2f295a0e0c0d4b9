"""After a restart, each peer that had a session is sent an initiation: in virtual time, the gap is a handshake."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tests.support.world import Host, World
from wgpy.constants import MESSAGE_INITIATION, REJECT_AFTER_TIME
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey


def connected(world: World) -> tuple[Host, Host]:
    """A client and a gateway, in whose configuration the client has no endpoint, with a session."""
    client, gateway = world.host("client"), world.host("gateway")
    world.introduce(client, gateway, one_way=True)
    world.send(client, gateway)
    world.run(10)
    world.eve.clear()
    return client, gateway


def restart(
    world: World, gateway: Host, client: Host, endpoint: Endpoint | None = None, *, up_first: bool = False
) -> None:
    """Replace the gateway by a new process; with `up_first` it comes up before its peers are configured, as by `wg`."""
    gateway.device = Device(random=world.random.randbytes, wall_clock=lambda: world.wall_ns(gateway))
    gateway.device.resume(gateway.public_key, {client.public_key: (client.endpoint, world.now)})
    peer = PeerChange(
        public_key=client.public_key, endpoint=endpoint, allowed_ips=(AllowedIPChange(ip_network(client.inner)),)
    )
    change = DeviceChange(private_key=gateway.private_key, peers=(peer,))
    if up_first:
        world.do(gateway, gateway.device.start(world.now))
    world.do(gateway, gateway.device.configure(change, world.now))
    if not up_first:
        world.do(gateway, gateway.device.start(world.now))


def initiations(world: World, source: Host) -> list[Endpoint]:
    return [
        seen.destination for seen in world.eve if seen.kind == MESSAGE_INITIATION and seen.source == source.endpoint
    ]


@pytest.mark.parametrize("seed", range(2))
def test_with_resumption_a_clients_data_arrives_after_one_handshake(seed: int) -> None:
    world = World(seed)
    client, gateway = connected(world)
    restart(world, gateway, client, up_first=bool(seed))
    gateway.received.clear()
    sent: list[bytes] = []
    for _ in range(100):
        sent.append(world.send(client, gateway, b"%d" % len(sent)))
        world.run(0.005)
    world.run(1)
    assert next(seen.kind for seen in world.eve if seen.source == gateway.endpoint) == MESSAGE_INITIATION
    assert initiations(world, gateway) == [client.endpoint]
    assert initiations(world, client) == []
    assert gateway.received == sent[6:]  # initiation, answer and confirmation take 0.01 s each


def test_without_resumption_the_client_notices_after_15_seconds() -> None:
    """As with every other WireGuard."""
    world = World()
    client, gateway = connected(world)
    restart(world, gateway, client)
    gateway.device._resumption = None
    gateway.device._peers[client.public_key].timers.new_handshake_at = float("inf")
    gateway.received.clear()
    for _ in range(20):
        world.send(client, gateway)
        world.run(1)
    assert 3 <= len(gateway.received) <= 5


def test_the_configured_endpoint_takes_precedence() -> None:
    world = World()
    client, gateway = connected(world)
    client.endpoint, before = Endpoint("198.51.100.7", 4), client.endpoint
    restart(world, gateway, client, client.endpoint)
    world.run(1)
    assert initiations(world, gateway) == [client.endpoint] != [before]


def test_only_a_peer_configured_under_the_same_key_gets_an_initiation() -> None:
    world = World()
    client, gateway = world.pair()
    device, at = gateway.device, {client.public_key: (client.endpoint, world.now)}
    stranger = PrivateKey(b"s" * 32).public_key
    device.resume(gateway.public_key, {stranger: (client.endpoint, world.now)})
    device.start(world.now)
    assert device.next_timeout() is None
    device.resume(stranger, at)
    device.start(world.now)
    assert device.next_timeout() is None
    device.resume(gateway.public_key, at)
    device.start(world.now + REJECT_AFTER_TIME)
    assert device.next_timeout() is None
    device.start(world.now)
    assert device.next_timeout() == world.now


def test_a_peer_that_starts_a_handshake_itself_gets_no_initiation_and_no_peer_gets_two() -> None:
    world = World()
    client, gateway = connected(world)
    client.device.forget_sessions()
    world.link.latency = 0.0
    gateway.device.stop()
    gateway.device.resume(
        gateway.public_key,
        dict.fromkeys((PrivateKey(b"o" * 32).public_key, client.public_key), (client.endpoint, world.now)),
    )
    world.do(gateway, gateway.device.start(world.now))
    world.run(1)
    assert len(initiations(world, gateway)) == 1
    gateway.device.stop()
    world.do(gateway, gateway.device.start(world.now + 1))
    world.run(10)
    assert len(initiations(world, gateway)) == 1


def test_many_peers_get_their_initiations_one_after_the_other() -> None:
    count = 1000
    world = World()
    gateway = world.host("gateway", up=False)
    endpoints = {
        PrivateKey(number.to_bytes(16, "big") * 2).public_key: Endpoint("192.0.2.77", number)
        for number in range(1, count + 1)
    }
    change = DeviceChange(peers=tuple(PeerChange(public_key=key) for key in endpoints))
    gateway.device.configure(change, world.now)
    gateway.device.resume(gateway.public_key, {key: (place, world.now) for key, place in endpoints.items()})
    world.do(gateway, gateway.device.start(world.now))
    world.run(4)
    times = [seen.at for seen in world.eve]
    assert {seen.destination for seen in world.eve} == set(endpoints.values())
    assert len(times) == count
    assert all(sum(at <= time < at + 0.1 for time in times) <= 51 for at in times[::50])
