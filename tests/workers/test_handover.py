"""What workers hand to each other: whole bursts in order, initiations, and what a full socket refuses."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bursts import burst_of
from tests.support.packets import ipv4_packet
from wgpy.burst import Burst, Datagrams
from wgpy.config.values import ALL_OFFLOADS, EndpointName, InterfaceConfig, Offloads, PeerConfig
from wgpy.constants import INITIATION_INTERVAL, MAX_SEGMENTS
from wgpy.datapath import MAX_WAITING, machine_clock
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.effects import ForeignInitiation, Handover
from wgpy.device.share import Share
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey, PublicKey
from wgpy.net.binding import bind_port
from wgpy.net.datagrams import SendResult
from wgpy.net.udp import UdpSockets
from wgpy.noise.handshake import InitiationReceived
from wgpy.tun.memory import MemoryTun
from wgpy.tunnel import Tunnel
from wgpy.workers.handover import HandoverMesh, connect_workers

GATEWAY, CLIENT = PrivateKey(b"g" * 32), PrivateKey(b"c" * 32)
INNER = "10.0.0.2"


class Meshes:
    """Two workers' ends."""

    def __init__(self) -> None:
        self.links = connect_workers(2)
        self.ends = [HandoverMesh(number, sockets) for number, sockets in enumerate(self.links)]

    def close(self) -> None:
        for end in self.ends:
            end.close()

    def received(self) -> Handover | None:
        """By the second worker."""
        return self.ends[1].receive(self.links[1][0])


@pytest.fixture
def meshes() -> Iterator[Meshes]:
    with closing(Meshes()) as made:
        yield made


@given(st.integers(1, 1400), st.integers(1, MAX_SEGMENTS), st.integers(0, 1400), st.binary(min_size=1, max_size=20))
def test_a_burst_arrives_unchanged(size: int, count: int, shorter: int, filling: bytes) -> None:
    packets = [(bytes([number]) + filling * 1400)[:size] for number in range(count)]
    packets[-1] = packets[-1][: max(1, size - shorter)]
    with closing(Meshes()) as meshes:
        sent = burst_of(*packets)
        assert meshes.ends[0].send(Handover(1, sent))
        got = meshes.received()
        assert got is not None
        assert got.worker == 1
        assert isinstance(got.what, Burst)
        assert list(got.what.packets()) == packets
        assert (got.what.lengths, got.what.stride, got.what.view) == (sent.lengths, sent.stride, sent.view)
        slots, expected = got.what.bodies(), sent.bodies()
        assert (slots.plaintexts, slots.sealed) == (expected.plaintexts, expected.sealed)
        assert meshes.received() is None


@pytest.mark.parametrize(
    "source",
    [
        Endpoint("192.0.2.1", 51820),
        Endpoint("192.0.2.1", 1, 0, b"\x0a\0\0\1", 7),
        Endpoint("fe80::ffff:ffff:ffff:ffff", 65535, 2**32 - 1, b"\0" * 16, 2**31 - 1),
        Endpoint("0000:0000:0000:0000:0000:ffff:255.255.255.255", 9),
    ],
)
def test_an_initiation_arrives_unchanged(meshes: Meshes, source: Endpoint) -> None:
    initiation = InitiationReceived(
        os.urandom(12), 0xDEADBEEF, PublicKey(os.urandom(32)), os.urandom(32), os.urandom(32), os.urandom(32)
    )
    assert meshes.ends[0].send(Handover(1, ForeignInitiation(initiation, source)))
    assert meshes.received() == Handover(1, ForeignInitiation(initiation, source))


def test_a_full_socket_refuses_whole_bursts_and_the_rest_stay_in_order(meshes: Meshes) -> None:
    taken = []
    for number in range(10_000):
        if meshes.ends[0].send(Handover(1, burst_of(*[number.to_bytes(4, "big") * 350] * 45))):
            taken.append(number)
        else:
            break
    assert 10 < len(taken) < 1000
    small = meshes.ends[0].send(Handover(1, burst_of(b"lone")))
    got = []
    while (handover := meshes.received()) is not None:
        assert isinstance(handover.what, Burst)
        assert len({bytes(packet) for packet in handover.what.packets()}) == 1
        got.append(bytes(handover.what.packet(0)[:4]))
    assert got == [number.to_bytes(4, "big") for number in taken] + [b"lone"] * small
    assert meshes.ends[0].send(Handover(1, burst_of(b"again")))


def test_initiations_find_room_in_a_socket_that_bursts_have_filled(meshes: Meshes) -> None:
    """Whoever sends a peer more than its worker can seal would else shut out the handshakes of that worker's others."""
    burst, source = burst_of(*[bytes(1400)] * 45), Endpoint("192.0.2.1", 51820)
    initiation = ForeignInitiation(InitiationReceived(bytes(12), 1, PublicKey(bytes(32)), *[bytes(32)] * 3), source)
    for _ in range(100):
        while meshes.ends[0].send(Handover(1, burst)):
            pass
        for _ in range(8):
            assert meshes.ends[0].send(Handover(1, initiation))
        got = meshes.received()
        assert got is not None
        while not isinstance(got.what, Burst):
            got = meshes.received()
            assert got is not None


def test_each_pair_of_workers_is_connected() -> None:
    links = connect_workers(4)
    meshes = [HandoverMesh(number, sockets) for number, sockets in enumerate(links)]
    for one in range(4):
        for other in range(4):
            if one == other:
                continue
            assert meshes[one].send(Handover(other, burst_of(bytes([one, other]))))
            got = meshes[other].receive(links[other][one])
            assert got is not None
            assert isinstance(got.what, Burst)
            assert bytes(got.what.packet(0)) == bytes([one, other])
    for mesh in meshes:
        mesh.close()


def test_a_socket_whose_other_end_is_gone_is_no_longer_read(meshes: Meshes) -> None:
    """The loop would call for ever."""

    async def main() -> int:
        calls = 0

        def readable(sock: socket.socket) -> None:
            nonlocal calls
            calls += 1
            assert meshes.ends[1].receive(sock) is None

        meshes.ends[1].start_reading(asyncio.get_running_loop(), readable)
        meshes.ends[0].close()
        await asyncio.sleep(0.05)
        assert not meshes.ends[1].send(Handover(0, burst_of(b"into the void")))
        meshes.ends[1].stop_reading()
        return calls

    assert asyncio.run(main()) == 1


# Two workers of a gateway with their real sockets, and a client, on the loopback.


class Given:
    """The port's host, as control gives it."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self.udp = UdpSockets(sockets, report_hosts=lambda hosts: None)

    def open(self, port: int = 0, *, fwmark: int = 0, offloads: Offloads = ALL_OFFLOADS) -> UdpSockets:
        if self.udp.sockets[0].fileno() < 0:  # it was closed
            self.udp = UdpSockets(bind_port(0)[0], report_hosts=lambda hosts: None)
        return self.udp


class Site:
    """The client is a peer of the second worker."""

    def __init__(self) -> None:
        links = connect_workers(2)
        self.hosts = [Given(sockets) for sockets in bind_port(0, workers=2)]
        self.tuns = [MemoryTun(f"worker{number}") for number in range(2)]
        self.workers = [
            Tunnel(
                InterfaceConfig(private_key=GATEWAY),
                tun=self.tuns[number],
                udp=self.hosts[number],
                share=Share(number, 2),
                mesh=HandoverMesh(number, links[number]),
            )
            for number in range(2)
        ]
        self.client_tun = MemoryTun("client")
        endpoint = EndpointName(host="127.0.0.1", port=self.hosts[0].udp.port)
        everything = (ip_network("0.0.0.0/0"),)
        peer = PeerConfig(public_key=GATEWAY.public_key, endpoint=endpoint, allowed_ips=everything)
        self.client = Tunnel(InterfaceConfig(private_key=CLIENT, peers=(peer,)), tun=self.client_tun)

    def status(self) -> list[DeviceStatus]:
        return [worker.status() for worker in self.workers]

    def out(self, worker: int, *payloads: bytes) -> list[bytes]:
        """Packets to the client that wait in a worker's queue of the TUN."""
        packets = [ipv4_packet("10.0.0.1", INNER, payload) for payload in payloads]
        for packet in packets:
            self.tuns[worker].inject(packet)
        return packets

    async def read_all(self, worker: int) -> None:
        """Wait until a worker has read all of them."""
        async with asyncio.timeout(30):
            while self.tuns[worker]._has_packets():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    made = Site()
    async with made.workers[0], made.workers[1], made.client:
        inner = (AllowedIPChange(ip_network(INNER)),)
        peer = PeerChange(public_key=CLIENT.public_key, worker=1, allowed_ips=inner)
        for worker in made.workers:
            worker.configure(DeviceChange(peers=(peer,)))
        yield made


async def arrivals(tun: MemoryTun, count: int) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            while (packet := tun.take()) is not None:
                found.append(packet)
            await asyncio.sleep(0.005)
    return found


def test_packets_reach_the_peer_from_either_workers_queue_and_come_back() -> None:
    async def main() -> None:
        async with site() as made:
            hello = ipv4_packet(INNER, "10.0.0.1", b"hello")
            made.client_tun.inject(hello)
            assert await arrivals(made.tuns[1], 1) == [hello]
            for worker in range(2):
                packets = made.out(worker, *(b"%d" % number for number in range(200)))
                assert await arrivals(made.client_tun, 200) == packets, "all of them, in order"
            first, second = made.status()
            assert first.peers == ()
            assert [peer.public_key for peer in second.peers] == [CLIENT.public_key]
            assert first.handed_over in (200, 201), "and perhaps the initiation"
            assert second.handed_over == 0
            assert first.drops == second.drops == {}

    asyncio.run(main())


def test_the_peers_worker_answers_an_initiation_whichever_worker_gets_it() -> None:
    """By the client's port: one of some is another worker's. All else then comes to the right one."""

    async def main() -> None:
        async with site() as made:
            for number in range(40):
                made.client.configure(DeviceChange(listen_port=0))
                made.client.device.forget_sessions()
                packet = ipv4_packet(INNER, "10.0.0.1", b"%d" % number)
                made.client_tun.inject(packet)
                assert await arrivals(made.tuns[1], 1) == [packet]
                if made.status()[0].handed_over:
                    break
                await asyncio.sleep(0.02)  # a peer may not begin twice within INITIATION_INTERVAL
            assert made.status()[0].handed_over == 1
            assert made.status()[0].drops == made.status()[1].drops == {}

    asyncio.run(main())


def test_a_worker_whose_socket_is_full_reads_neither_tun_nor_handovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait where there is room for them; beyond that, who hands over counts them as dropped."""

    async def main() -> None:
        async with site() as made:
            hello = ipv4_packet(INNER, "10.0.0.1", b"hello")
            made.client_tun.inject(hello)
            await arrivals(made.tuns[1], 1)
            udp = made.hosts[1].udp
            room = False

            def full(datagrams: Datagrams, endpoint: Endpoint, traffic_class: int) -> SendResult:
                return send(datagrams, endpoint, traffic_class) if room else SendResult(datagrams)

            send = udp.send
            monkeypatch.setattr(udp, "send", full)
            monkeypatch.setattr(made.workers[1]._path, "_writable", lambda sock: None)  # it would be, at once
            packets = made.out(0, *(b"%d" % number for number in range(300)))
            await made.read_all(0)
            assert made.status()[0].handed_over == 300 + (made.status()[0].handed_over > 300)
            assert len(made.workers[1]._path._waiting) == 1 < MAX_WAITING
            payload = bytes(1300)
            made.out(0, *[payload] * 5_000)
            await made.read_all(0)
            lost = made.status()[0].drops["handover_full"]
            assert 0 < lost < 5_000
            room = True
            made.workers[1]._path._send_waiting()
            got = await arrivals(made.client_tun, 300 + 5_000 - lost)
            assert got[:300] == packets
            assert set(got[300:]) == {ipv4_packet("10.0.0.1", INNER, payload)}

    asyncio.run(main())


def test_a_closed_worker_hands_over_nothing_and_the_other_counts_it() -> None:
    async def main() -> None:
        async with site() as made:
            made.workers[1].close()
            made.out(0, b"1", b"2")
            await made.read_all(0)
            assert made.status()[0].drops == {"handover_full": 2}
            assert made.status()[0].handed_over == 0

    asyncio.run(main())


def test_what_is_handed_to_a_worker_that_has_not_heard_yet_that_the_link_is_up_waits() -> None:
    """Control tells all workers at once, but one is the first to read packets."""

    async def main() -> None:
        async with site() as made:
            hello = ipv4_packet(INNER, "10.0.0.1", b"hello")
            made.client_tun.inject(hello)
            await arrivals(made.tuns[1], 1)
            late = made.workers[1]
            late._path.follows_link = True
            late.down()
            handed_over = made.status()[0].handed_over
            packets = made.out(0, b"1", b"2")
            await made.read_all(0)
            async with asyncio.timeout(10):
                while late._mesh._loop is not None:  # type: ignore[union-attr]  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            late.up()
            assert await arrivals(made.client_tun, 2) == packets
            assert made.status()[0].handed_over == handed_over + 2
            assert made.status()[1].drops == {}

    asyncio.run(main())


def test_after_a_suspension_each_worker_forgets_its_sessions_when_it_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each notices it by itself: the one that serves the peer, by what the other hands to it."""
    slept = 0.0

    async def main() -> None:
        nonlocal slept
        async with site() as made:
            hello = ipv4_packet(INNER, "10.0.0.1", b"hello")
            made.client_tun.inject(hello)
            await arrivals(made.tuns[1], 1)
            forgotten: list[int] = []

            def noting(number: int, forget: Callable[[], None]) -> Callable[[], None]:
                def forget_and_note() -> None:
                    forgotten.append(number)
                    forget()

                return forget_and_note

            for number, worker in enumerate(made.workers):
                monkeypatch.setattr(worker._path, "_clock", lambda: machine_clock() + slept)
                noted = noting(number, worker.device.forget_sessions)
                monkeypatch.setattr(worker.device, "forget_sessions", noted)
            for _ in range(2):
                await asyncio.sleep(2 * INITIATION_INTERVAL)  # else the client does not answer the second handshake
                slept += 60.0
                packets = made.out(0, b"1", b"2")
                assert await arrivals(made.client_tun, 2) == packets
            assert sorted(forgotten) == [0, 0, 1, 1], "each, each time"
            assert made.status()[1].peers[0].last_handshake_ns

    asyncio.run(main())
