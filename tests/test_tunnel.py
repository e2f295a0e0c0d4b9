"""Tunnels in one process: real UDP sockets on the loopback, TUNs in memory, no root."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest

from tests.support.packets import ipv4_packet
from wgpy import virtual
from wgpy.burst import Datagrams
from wgpy.config.values import ALL_OFFLOADS, NO_OFFLOADS, EndpointName, InterfaceConfig, Offloads, PeerConfig
from wgpy.datapath import MAX_WAITING, Tun, machine_clock
from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.device.device import PEERS_AT_ONCE
from wgpy.device.effects import Event, EventKind, Transmit
from wgpy.device.timers import NEVER
from wgpy.endpoint import Endpoint
from wgpy.errors import ConfigError, NetworkError, SocketError, TunError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.net import names, resolve
from wgpy.net.datagrams import SendResult
from wgpy.net.memory import MemoryNetwork
from wgpy.net.udp import UdpSockets
from wgpy.noise.primitives import dh
from wgpy.tun.linux import LinuxTun
from wgpy.tun.memory import MemoryTun
from wgpy.tunnel import Tunnel
from wgpy.userspace.tun import StackTun

LEFT, RIGHT = PrivateKey(b"l" * 32), PrivateKey(b"r" * 32)
PSK = PresharedKey(b"p" * 32)
# One after the other they make the peer a keepalive, and leave its configuration as it was.
GREET = PeerChange(public_key=RIGHT.public_key, persistent_keepalive=25)
QUIET = PeerChange(public_key=RIGHT.public_key, persistent_keepalive=0)


class End:
    """A tunnel with its TUN, and what it told."""

    def __init__(self, config: InterfaceConfig, *, offloads: Offloads = ALL_OFFLOADS) -> None:
        self.tun = MemoryTun()
        self.events: list[Event] = []
        self.tunnel = Tunnel(config, tun=self.tun, on_event=self.events.append, offloads=offloads)

    async def arrival(self) -> bytes:
        """The next packet out of the tunnel."""
        arrived = asyncio.Event()
        self.tun.on_arrival = arrived.set
        async with asyncio.timeout(10):
            while (packet := self.tun.take()) is None:
                await arrived.wait()
                arrived.clear()
        return packet


def config(own: PrivateKey, other: PrivateKey, inner: str, endpoint: EndpointName | None = None) -> InterfaceConfig:
    peer = PeerConfig(
        public_key=other.public_key, preshared_key=PSK, endpoint=endpoint, allowed_ips=(ip_network(inner),)
    )
    return InterfaceConfig(private_key=own, peers=(peer,))


@asynccontextmanager
async def two_ends(host: str = "127.0.0.1", *, offloads: Offloads = ALL_OFFLOADS) -> AsyncIterator[tuple[End, End]]:
    right = End(config(RIGHT, LEFT, "10.0.0.1/32"), offloads=offloads)
    async with right.tunnel:
        endpoint = EndpointName(host=host, port=right.tunnel.listen_port)
        left = End(config(LEFT, RIGHT, "10.0.0.2/32", endpoint), offloads=offloads)
        async with left.tunnel:
            yield left, right


@pytest.mark.parametrize("offloads", [ALL_OFFLOADS, NO_OFFLOADS], ids=["offloads", "none"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_packets_pass_both_ways(host: str, offloads: Offloads) -> None:
    async def main() -> None:
        async with two_ends(host, offloads=offloads) as (left, right):
            there = ipv4_packet("10.0.0.1", "10.0.0.2", b"there" * 100)
            back = ipv4_packet("10.0.0.2", "10.0.0.1", b"back")
            left.tun.inject(there)
            assert await right.arrival() == there
            right.tun.inject(back)
            assert await left.arrival() == back
            assert [event.kind for event in left.events] == [EventKind.HANDSHAKE_COMPLETED, EventKind.PEER_HEARD]
            (peer,) = left.tunnel.status().peers
            assert peer.last_handshake_ns > 0
            assert peer.rx_bytes == 92 + 32 + 32

    asyncio.run(main())


@pytest.mark.parametrize("kind", [MemoryTun, LinuxTun, StackTun])
def test_every_kind_of_tun_has_what_a_tunnel_needs(kind: type[Tun]) -> None:
    """Most are handed on through keyword arguments of any type, where mypy does not see it."""
    needed = {name for name in (*vars(Tun), *Tun.__annotations__) if not name.startswith("_")}
    assert {"read", "write", "is_in_other_namespace", "mtu"} <= needed
    source = "".join(inspect.getsource(base) for base in kind.__mro__[:-1])
    assert [name for name in sorted(needed) if not hasattr(kind, name) and f"self.{name} = " not in source] == []


def test_many_packets_arrive_in_order() -> None:
    async def main() -> None:
        async with two_ends() as (left, right):
            packets = [ipv4_packet("10.0.0.1", "10.0.0.2", n.to_bytes(4, "big") * 300) for n in range(100)]
            for packet in packets:
                left.tun.inject(packet)
            assert [await right.arrival() for _ in packets] == packets

    asyncio.run(main())


def test_garbage_changes_nothing() -> None:
    async def main() -> None:
        async with two_ends() as (left, right):
            loop = asyncio.get_running_loop()
            port = right.tunnel.listen_port
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port)
            )
            for kind in range(6):
                for size in (0, 1, 4, 31, 32, 64, 92, 148, 1500, 60000):
                    transport.sendto((bytes([kind, 0, 0, 0]) + b"\xa5" * size)[:size])
            transport.close()
            packet = ipv4_packet("10.0.0.1", "10.0.0.2", b"still here")
            left.tun.inject(packet)
            assert await right.arrival() == packet
            drops = right.tunnel.status().drops
            assert drops["malformed"] > 30
            assert drops["invalid_mac1"] == 1
            assert drops["unknown_index"] >= 6

    asyncio.run(main())


def test_a_port_in_use_is_one_clear_error() -> None:
    async def main() -> None:
        async with two_ends() as (_, right):
            port = right.tunnel.listen_port
            third = End(InterfaceConfig(private_key=PrivateKey.generate(), listen_port=port))
            with pytest.raises(SocketError, match=f"{port}.*in use"):
                await third.tunnel.start()
            third.tunnel.close()

    asyncio.run(main())


def test_a_name_that_does_not_resolve_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "0")

    async def main() -> None:
        end = End(config(LEFT, RIGHT, "10.0.0.2/32", EndpointName(host="no-such-host.invalid", port=1)))
        with pytest.raises(NetworkError, match=r"no-such-host\.invalid"):
            await end.tunnel.start()
        end.tunnel.close()

    asyncio.run(main())


def test_a_tun_that_goes_away_closes_the_tunnel_with_an_error() -> None:
    async def main() -> None:
        async with two_ends() as (left, right):
            right.tun.inject(ipv4_packet("10.0.0.2", "10.0.0.99", b"refused: it makes the tunnel write an error"))
            right.tun.close()
            left.tun.inject(ipv4_packet("10.0.0.1", "10.0.0.2", b"to nowhere"))
            async with asyncio.timeout(10):
                with pytest.raises(TunError, match="memory"):
                    await right.tunnel.wait_closed()

    asyncio.run(main())


def test_a_change_is_all_or_nothing() -> None:
    async def main() -> None:
        async with two_ends() as (left, _):
            before = left.tunnel.status()
            bad = PeerChange(public_key=RIGHT.public_key, persistent_keepalive=70000)
            with pytest.raises(ConfigError, match="70000"):
                left.tunnel.configure(DeviceChange(listen_port=0, replace_peers=True, peers=(bad,)))
            assert left.tunnel.status() == before

    asyncio.run(main())


def test_the_port_changes_while_traffic_passes() -> None:
    async def main() -> None:
        async with two_ends() as (left, right):
            packet = ipv4_packet("10.0.0.1", "10.0.0.2", b"one")
            left.tun.inject(packet)
            assert await right.arrival() == packet
            old = left.tunnel.listen_port
            left.tunnel.configure(DeviceChange(listen_port=0))
            assert left.tunnel.listen_port != old
            left.tun.inject(packet)
            assert await right.arrival() == packet
            (peer,) = right.tunnel.status().peers
            assert peer.endpoint is not None
            assert peer.endpoint.port == left.tunnel.listen_port

    asyncio.run(main())


def test_the_callback_for_events_may_close_the_tunnel_or_raise() -> None:
    async def main() -> None:
        right = End(config(RIGHT, LEFT, "10.0.0.1/32"))
        async with right.tunnel:
            endpoint = EndpointName(host="127.0.0.1", port=right.tunnel.listen_port)
            left = End(config(LEFT, RIGHT, "10.0.0.2/32", endpoint))

            def close(_: Event) -> None:
                left.tunnel.close()
                raise RuntimeError("its own fault")

            left.tunnel = Tunnel(left.tunnel.config, tun=left.tun, on_event=close)
            await left.tunnel.start()
            left.tun.inject(ipv4_packet("10.0.0.1", "10.0.0.2", b"hello"))
            async with asyncio.timeout(10):
                await left.tunnel.wait_closed()

    asyncio.run(main())


def test_datagrams_that_the_system_refuses_are_counted_as_dropped_and_not_as_sent() -> None:
    async def main() -> None:
        broadcast = EndpointName(host="255.255.255.255", port=9)  # not without SO_BROADCAST
        left = End(config(LEFT, RIGHT, "10.0.0.2/32", broadcast))
        async with left.tunnel:
            left.tunnel.configure(DeviceChange(peers=(GREET,)))
            (peer,) = left.tunnel.status().peers
            assert peer.drops == {"send_refused": 1}
            assert peer.tx_bytes == 0

    asyncio.run(main())


def test_a_lone_packet_that_did_not_leave_is_neither_counted_as_sent_nor_expected_to_be_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(udp: UdpSockets, datagrams: Datagrams, *_: object) -> SendResult:
        return SendResult(refused=1, refused_bytes=len(datagrams.view))

    async def main() -> None:
        async with two_ends() as (left, right):
            for here, there, packet in (
                (left, right, ipv4_packet("10.0.0.1", "10.0.0.2", b"hello")),
                (right, left, ipv4_packet("10.0.0.2", "10.0.0.1", b"hello")),
            ):
                here.tun.inject(packet)
                assert await there.arrival() == packet
            (before,) = left.tunnel.status().peers
            monkeypatch.setattr(UdpSockets, "send", refuse)
            left.tun.inject(ipv4_packet("10.0.0.1", "10.0.0.2", b"hello"))
            left.tunnel._path._tun_readable()
            (peer,) = left.tunnel.status().peers
            assert (peer.tx_bytes, peer.drops) == (before.tx_bytes, {"send_refused": 1})
            assert [peer.timers.new_handshake_at for peer in left.tunnel._path._device._peers.values()] == [NEVER]

    asyncio.run(main())


def test_datagrams_dropped_from_the_queue_of_the_socket_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UdpSockets, "send", lambda self, datagrams, *_: SendResult(remaining=datagrams))

    async def main() -> None:
        async with two_ends() as (left, right):
            endpoint = Endpoint("127.0.0.1", right.tunnel.listen_port)
            for _ in range(MAX_WAITING + 3):
                left.tunnel._path._transmit(Transmit(Datagrams.of(b"cookie reply"), endpoint, 0, None))
            assert left.tunnel.status().drops == {"socket_full": 3}
            left.tunnel.down()
            assert left.tunnel.status().drops == {"socket_full": 3, "interface_down": MAX_WAITING}

    asyncio.run(main())


class LinkedTun(MemoryTun):
    """A TUN whose link somebody sets up and down."""

    is_up = True

    def link(self) -> tuple[bool, int] | None:
        return self.is_up, self.mtu


@pytest.mark.parametrize("mtu", [0, 10, 67, 65536, -1])
def test_an_mtu_that_no_interface_has_is_refused(mtu: int) -> None:
    tunnel = Tunnel(InterfaceConfig(), tun=MemoryTun())
    with pytest.raises(ConfigError, match=f"mtu: expected a number of bytes, 68 to 65535, not '{mtu}'"):
        tunnel.mtu = mtu
    tunnel.mtu = 68
    assert tunnel.mtu == 68


def test_packets_wait_in_the_tun_until_the_tunnel_is_up_and_what_was_there_before_it_went_down_is_dropped() -> None:
    """A link that comes up carries packets at once, and we hear of it a little later."""
    first, later = (ipv4_packet("10.0.0.1", "10.0.0.2", payload) for payload in (b"first", b"later"))

    async def main() -> None:
        async with two_ends() as (left, right):
            tun = LinkedTun()
            endpoint = EndpointName(host="127.0.0.1", port=right.tunnel.listen_port)
            async with Tunnel(config(LEFT, RIGHT, "10.0.0.2/32", endpoint), tun=tun) as tunnel:
                left.tunnel.close()
                tunnel.follow_link()
                tun.inject(first)
                tun.is_up = False
                tunnel._link_changed()
                assert tunnel.status().drops == {"interface_down": 1}
                tun.is_up = True
                tun.inject(later)
                await asyncio.sleep(0)
                tunnel._link_changed()
                assert await right.arrival() == later
                assert tunnel.status().drops == {"interface_down": 1}

    asyncio.run(main())


def test_packets_for_a_tunnel_that_its_owner_took_down_are_dropped_and_do_not_gather() -> None:
    """It is the owner who knows when it is up again, so nothing has to wait; a TUN in memory would grow for ever."""

    async def main() -> None:
        async with two_ends() as (left, _):
            left.tunnel.down()
            for turn in range(1, 4):
                for _ in range(50):
                    left.tun.inject(ipv4_packet("10.0.0.1", "10.0.0.2", b"into the void"))
                while left.tun._has_packets():  # noqa: ASYNC110
                    await asyncio.sleep(0)
                assert left.tunnel.status().drops == {"interface_down": 50 * turn}

    asyncio.run(main())


@pytest.mark.root
def test_every_fwmark_of_32_bits_can_be_set() -> None:
    async def main() -> None:
        async with two_ends() as (left, _):
            for mark in (0x80000000, 0xFFFFFFFF, 0):
                left.tunnel.configure(DeviceChange(fwmark=mark))
                assert left.tunnel.status().fwmark == mark

    asyncio.run(main())


def test_deadlines_that_passed_while_the_machine_slept_are_kept() -> None:
    """The loop's clock sleeps, too: a timer that was set before would come late by as much as it had left."""
    slept = 0.0

    async def main() -> None:
        nonlocal slept
        async with two_ends() as (left, right):
            left.tunnel._path._clock = lambda: machine_clock() + slept
            packet = ipv4_packet("10.0.0.1", "10.0.0.2", b"hello")
            left.tun.inject(packet)
            assert await right.arrival() == packet
            right.tunnel.down()
            left.tunnel._path._cancel_timer()  # it was set for the handshake, and would find out when that is long done
            left.tunnel._path.finish()
            assert due(left.tunnel) > 5.5
            slept = 3600.0
            left.tun.inject(packet)
            left.tunnel._path._tun_readable()
            assert due(left.tunnel) < 5.5  # the handshake is repeated after 5 seconds and a third at most

    def due(tunnel: Tunnel) -> float:
        assert tunnel._path._timer is not None
        return tunnel._path._timer.when() - asyncio.get_running_loop().time()

    asyncio.run(main())


@pytest.mark.parametrize("keepalive", [0, 5, 25])
def test_a_name_is_looked_up_again_for_as_long_as_its_peer_does_not_answer(
    keepalive: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which events do not tell of again and again; an hour in virtual time."""
    lookups = 0

    async def look_up(name: EndpointName) -> list[Endpoint]:
        nonlocal lookups
        lookups += 1
        return [Endpoint("192.0.2.2", 51820)]

    monkeypatch.setattr(resolve, "look_up", look_up)
    monkeypatch.setattr(names, "look_up", look_up)
    monkeypatch.setattr(names, "INTERVAL", 1e9)

    async def main() -> list[EventKind]:
        peer = PeerConfig(
            public_key=RIGHT.public_key,
            endpoint=EndpointName(host="peer.example", port=51820),
            allowed_ips=(ip_network("10.0.0.2/32"),),
            persistent_keepalive=keepalive,
        )
        tun, events = MemoryTun(), list[Event]()
        host = MemoryNetwork().host("192.0.2.1")
        clock = asyncio.get_running_loop().time
        config = InterfaceConfig(private_key=LEFT, peers=(peer,))
        async with Tunnel(config, tun=tun, udp=host, clock=clock, on_event=events.append):
            for _ in range(60):
                tun.inject(ipv4_packet("10.0.0.1", "10.0.0.2"))
                await asyncio.sleep(60)
        return [event.kind for event in events]

    assert virtual.run(main()) == [EventKind.HANDSHAKE_UNANSWERED, EventKind.HANDSHAKE_ABANDONED]
    assert lookups > 3600 / names.PATIENCE / 2


@pytest.mark.parametrize("keepalive", [0, 25])
def test_a_thousand_peers_are_configured_a_few_for_each_turn_of_the_loop(
    monkeypatch: pytest.MonkeyPatch, keepalive: int
) -> None:
    """With a keepalive each begins a handshake of two Diffie-Hellman exchanges: 200 ms for a thousand."""
    work = {"changes": 0, "exchanges": 0}

    def counted(what: str, call: Any) -> Any:
        def counting(*arguments: Any, **options: Any) -> Any:
            work[what] += 1
            return call(*arguments, **options)

        return counting

    monkeypatch.setattr(resolve, "PeerChange", counted("changes", PeerChange))
    monkeypatch.setattr("wgpy.noise.handshake.dh", counted("exchanges", dh))

    def given(port: int) -> tuple[PeerConfig, ...]:
        return tuple(
            PeerConfig(
                public_key=PublicKey(number.to_bytes(32, "little")),
                endpoint=EndpointName(host="192.0.2.9", port=port),
                persistent_keepalive=keepalive,
                allowed_ips=(ip_network(f"10.{number >> 8}.{number & 255}.0/24"),),
            )
            for number in range(2, 1002)
        )

    async def in_turns(call: Callable[[], Awaitable[None]]) -> dict[str, int]:
        """The work of it and of what it leaves to timers, each the most in one turn; None is left."""
        task = asyncio.ensure_future(call())
        most = dict.fromkeys(work, 0)
        idle = 0
        while idle < 5:
            before = work.copy()
            await asyncio.sleep(0)
            idle = idle + 1 if work == before and task.done() else 0
            most = {what: max(most[what], now - before[what]) for what, now in work.items()}
        await task
        return most

    async def main() -> None:
        host, clock = MemoryNetwork().host("192.0.2.1"), asyncio.get_running_loop().time
        config = InterfaceConfig(private_key=LEFT, peers=given(7))
        tunnel = Tunnel(config, tun=MemoryTun(), udp=host, clock=clock)
        at_most = {"changes": resolve.SLICE, "exchanges": 2 * PEERS_AT_ONCE if keepalive else 0}
        assert await in_turns(tunnel.start) == at_most
        assert len(tunnel.status().peers) == work["changes"] == 1000
        assert work["exchanges"] == (2000 if keepalive else 0)

        none, moved = replace(config, peers=()), replace(config, peers=given(8))
        each = (2, 1) if keepalive else (0, 2)  # the exchange of the static keys is done once, when it is needed
        for changed, exchanges in ((none, 0), (config, each[0]), (moved, each[1]), (none, 0)):
            work["exchanges"] = 0
            most = await in_turns(partial(tunnel.reconfigure, changed))
            assert most["exchanges"] <= 2 * PEERS_AT_ONCE
            assert work["exchanges"] == exchanges * 1000
            assert len(tunnel.status().peers) == len(changed.peers)
        tunnel.close()

    virtual.run(main())
