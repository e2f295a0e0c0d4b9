"""What a tunnel tells, and waiting for a handshake: two tunnels in virtual time, without a kernel."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.test_tunnel import GREET, LEFT, QUIET, RIGHT, config
from wgpy import virtual
from wgpy.config.values import EndpointName
from wgpy.constants import REJECT_AFTER_TIME
from wgpy.device.changes import DeviceChange
from wgpy.device.effects import Event, EventKind
from wgpy.endpoint import Endpoint
from wgpy.errors import ConfigError, HandshakeTimeout, TunnelClosedError
from wgpy.net.memory import MemoryNetwork
from wgpy.tun.memory import MemoryTun
from wgpy.tunnel import Tunnel


def virtual_ends(network: MemoryNetwork) -> tuple[Tunnel, Tunnel]:
    """Left, at 192.0.2.1, knows where right is, at 192.0.2.2, and not the other way round. Their TUNs are in memory."""
    clock = asyncio.get_running_loop().time
    to_right = EndpointName(host="192.0.2.2", port=51820)
    left_config = config(LEFT, RIGHT, "10.0.0.2/32", to_right)
    right_config = replace(config(RIGHT, LEFT, "10.0.0.1/32"), listen_port=to_right.port)
    left = Tunnel(left_config, tun=MemoryTun(), udp=network.host("192.0.2.1"), clock=clock)
    right = Tunnel(right_config, tun=MemoryTun(), udp=network.host("192.0.2.2"), clock=clock)
    return left, right


def test_a_peer_that_moves_with_every_packet_is_reported_once_a_second() -> None:
    """So a slow subscriber, or one that keeps events, does not pay for each packet of that peer."""

    async def main() -> list[Event]:
        left, right = virtual_ends(MemoryNetwork())
        async with left, right:
            events = right.events()
            await left.wait_for_handshake(RIGHT.public_key)
            for port in range(1000, 1300):
                left.configure(DeviceChange(listen_port=port, peers=(GREET, QUIET)))
                await asyncio.sleep(0.01)
            await asyncio.sleep(2)
            (peer,) = right.status().peers
            assert peer.endpoint == Endpoint("192.0.2.1", 1299)
        return [event async for event in events if event.kind is EventKind.ENDPOINT_MOVED]

    moves = virtual.run(main())
    assert [move.endpoint.port for move in moves if move.endpoint][-1] == 1299
    assert len(moves) == 4


def test_waiting_for_a_handshake_starts_one_and_ends_with_it() -> None:
    async def main() -> None:
        left, right = virtual_ends(MemoryNetwork(delay=0.5))
        async with left, right:
            loop = asyncio.get_running_loop()
            begin, called = loop.time(), asyncio.create_task(right.wait_for_handshake(LEFT.public_key))
            await left.wait_for_handshake(RIGHT.public_key)
            assert loop.time() - begin == pytest.approx(1.0, abs=1e-4)
            await called  # confirmed by what the initiator sends first
            assert loop.time() - begin == pytest.approx(1.5, abs=1e-4)
            await left.wait_for_handshake(RIGHT.public_key.base64())  # type: ignore[arg-type]
            assert loop.time() - begin == pytest.approx(1.5, abs=1e-4)
            assert left.status().peers[0].persistent_keepalive == 0
            await asyncio.sleep(180)
            await left.wait_for_handshake(RIGHT.public_key)  # the session is too old by now
            assert loop.time() - begin == pytest.approx(182.5, abs=1e-3)
            left.down()
            left.up()
            await left.wait_for_handshake(RIGHT.public_key)  # it was forgotten
            assert loop.time() - begin == pytest.approx(183.5, abs=1e-3)

    virtual.run(main())


def test_waiting_for_a_peer_that_does_not_answer_ends() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        network.carries = lambda *_: False
        left, right = virtual_ends(network)
        with pytest.raises(TunnelClosedError, match="not been started"):
            await left.wait_for_handshake(RIGHT.public_key)
        async with left, right:
            with pytest.raises(HandshakeTimeout, match=r"192\.0\.2\.2:51820 has not answered for 100 s"):
                await left.wait_for_handshake(RIGHT.public_key, timeout=100)
            with pytest.raises(HandshakeTimeout, match="it has no Endpoint, so it must begin"):
                await right.wait_for_handshake(LEFT.public_key, timeout=1)
            with pytest.raises(ConfigError, match="not a peer"):
                await left.wait_for_handshake(LEFT.public_key)
            waiting = asyncio.create_task(left.wait_for_handshake(RIGHT.public_key))
            await asyncio.sleep(1)
        with pytest.raises(TunnelClosedError):
            await waiting
        with pytest.raises(TunnelClosedError):
            await left.wait_for_handshake(RIGHT.public_key)
        assert [event async for event in left.events()] == []

    virtual.run(main())


def test_every_subscriber_gets_events_until_the_tunnel_closes() -> None:
    async def main() -> None:
        left, right = virtual_ends(MemoryNetwork())
        async with left, right:
            first, second = left.events(), left.events()
            await left.wait_for_handshake(RIGHT.public_key)
            assert (await anext(first)).kind is EventKind.HANDSHAKE_COMPLETED
            await asyncio.sleep(3 * REJECT_AFTER_TIME + 1)
        kinds = [EventKind.HANDSHAKE_COMPLETED, EventKind.PEER_HEARD, EventKind.KEYS_ERASED]
        assert [event.kind async for event in first] == kinds[1:]
        assert [event.kind async for event in second] == kinds

    virtual.run(main())
