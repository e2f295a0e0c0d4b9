"""Control itself, in the test's process: a client or a worker goes away at the worst moment."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_network

import pytest

from tests.support.netns import in_fresh_namespace
from wgpy import __version__
from wgpy.burst import Datagrams
from wgpy.config.values import ALL_OFFLOADS, InterfaceConfig, PeerConfig
from wgpy.constants import MESSAGE_RESPONSE
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.endpoint import Endpoint
from wgpy.keys import PrivateKey
from wgpy.noise.handshake import LocalStatic, RemoteStatic, open_initiation
from wgpy.system import interpreter
from wgpy.tun.linux import LinuxTun
from wgpy.workers.channel import Body, Kind
from wgpy.workers.pool import WorkerPool
from wgpy.workers.seat import Seat

pytestmark = pytest.mark.root

PRIVATE = [PrivateKey(bytes([number]) * 32) for number in (1, 2)]
KEYS = [key.public_key for key in PRIVATE]
GATEWAY = PrivateKey(b"g" * 32)
FUTURE = 2 * 10**18  # nanoseconds since 1970
PREFIX = ip_network("10.0.0.0/24")


def running(body: Callable[[WorkerPool], Awaitable[None]], *, floor: int = 0) -> None:
    """Run with a pool of two workers that has just started; the prefix is the first one's peer's."""

    async def main() -> None:
        networks = [(PREFIX,), ()]
        peers = tuple(PeerConfig(public_key=key, allowed_ips=own) for key, own in zip(KEYS, networks, strict=True))
        pool = WorkerPool(
            InterfaceConfig(private_key=GATEWAY, peers=peers),
            queues=LinuxTun.open_queues("wg0", 2),
            on_event=lambda event: None,
            on_unanswered=lambda: None,
            keylog=None,
            offloads=ALL_OFFLOADS,
        )
        try:
            pool.timestamp_floor = floor
            await pool.start(up=True)
            await body(pool)
        finally:
            await pool.close()

    asyncio.run(asyncio.wait_for(main(), 60))


async def until(happens: Callable[[], Awaitable[bool]]) -> None:
    while not await happens():  # noqa: ASYNC110 (other processes do it)
        await asyncio.sleep(0.05)


def is_free(port: int) -> bool:
    with socket.socket(type=socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.bind(("", port))
        return True
    return False


@in_fresh_namespace
def test_a_change_is_made_in_all_workers_though_who_wanted_it_is_gone() -> None:
    """The userspace API closes a connection, and cancels what it asked for, if it needs the descriptor for others."""

    async def body(pool: WorkerPool) -> None:
        status = await pool.status()
        gaining = status.workers[1].pid
        os.kill(gaining, signal.SIGSTOP)
        moved = PeerChange(public_key=KEYS[1], allowed_ips=(AllowedIPChange(PREFIX),))
        change = asyncio.ensure_future(pool.configure(DeviceChange(listen_port=40404, peers=(moved,))))
        await asyncio.sleep(0.2)
        assert not change.done()
        change.cancel()
        await asyncio.sleep(0)
        os.kill(gaining, signal.SIGCONT)
        await pool.configure(DeviceChange())  # after the change before it
        assert is_free(status.listen_port)
        by_themselves = [await seat.status(10) for seat in pool._seats]
        assert [worker.peers[0].allowed_ips for worker in by_themselves] == [(), (PREFIX,)]

    running(body)


@in_fresh_namespace
def test_a_worker_that_dies_while_others_are_set_up_is_replaced() -> None:
    set_up = WorkerPool._set_up

    async def dying(self: WorkerPool, seat: Seat, whole: Sequence[bytes]) -> None:
        await set_up(self, seat, whole)
        if seat.number == 0 and seat.process is not None and not seat.replaced:
            process = seat.process
            process.kill("killed by the test")
            await process._gone

    async def body(pool: WorkerPool) -> None:
        async def is_there() -> bool:
            return all(worker.pid for worker in (await pool.status()).workers)

        await until(is_there)
        assert [worker.replaced for worker in (await pool.status()).workers] == [1, 0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkerPool, "_set_up", dying)
        running(body)


@in_fresh_namespace
def test_a_worker_that_replaces_another_knows_the_mtu_of_the_interface_and_of_routes() -> None:
    """It never looks at routes itself, and cannot see an interface that is in another network namespace."""
    told: list[tuple[Kind, Body]] = []
    send = Seat.send

    def noting(self: Seat, kind: Kind, body: Body = b"", fds: Sequence[int] = ()) -> None:
        told.append((kind, body))
        send(self, kind, body, fds)

    async def body(pool: WorkerPool) -> None:
        for command in ("link set wg0 mtu 1300 up", "route add 10.0.0.0/24 dev wg0 mtu 1200"):
            done = await asyncio.create_subprocess_exec("ip", *command.split())
            assert await done.wait() == 0
        pool.follow_link()
        routes = {"mtu": 1300, "route_mtus": [1200]}

        async def has(routes: object) -> bool:
            return (Kind.ROUTES, routes) in told

        await until(lambda: has(routes))
        told.clear()
        os.kill((await pool.status()).workers[0].pid, signal.SIGKILL)
        await until(lambda: has(routes))
        assert [kind for kind, _ in told] == [Kind.INITIATIONS, Kind.ROUTES, Kind.UP]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Seat, "send", noting)
        running(body)


@in_fresh_namespace
def test_timestamps_do_not_repeat_if_a_worker_dies_before_it_reports_one_and_the_clock_is_behind() -> None:
    local = LocalStatic(PRIVATE[0])
    remote = RemoteStatic.of(local, GATEWAY.public_key)

    async def body(pool: WorkerPool) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.setblocking(False)

            async def timestamp() -> bytes:
                message = await asyncio.get_running_loop().sock_recv(peer, 2048)
                return open_initiation(local, message).authenticate(remote).timestamp

            endpoint = Endpoint(*peer.getsockname())
            keepalive = PeerChange(public_key=KEYS[0], endpoint=endpoint, persistent_keepalive=25)
            await pool.configure(DeviceChange(peers=(keepalive,)))
            before = await timestamp()
            os.kill((await pool.status()).workers[0].pid, signal.SIGKILL)
            assert await timestamp() > before

    running(body, floor=FUTURE)


@in_fresh_namespace
def test_a_process_that_replaces_a_worker_refuses_the_initiations_that_the_dead_one_answered() -> None:
    """Whoever has recorded one could otherwise move the peer's endpoint to himself, once for each worker that dies."""

    async def body(pool: WorkerPool) -> None:
        there = Endpoint("127.0.0.1", (await pool.status()).listen_port)
        keepalive = PeerChange(public_key=GATEWAY.public_key, endpoint=there, persistent_keepalive=25)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)

            async def answer_to(initiation: bytes) -> bytes:
                """The response to one that was sent, if no other was answered before it."""
                sock.sendto(initiation, (there.host, there.port))
                while (message := await asyncio.get_running_loop().sock_recv(sock, 2048))[0] != MESSAGE_RESPONSE:
                    pass  # the gateway's own initiation
                assert message[8:12] == initiation[4:8]
                return message

            def initiation() -> tuple[Device, bytes]:
                """A peer that has just been started, and its initiation."""
                peer = Device(random=os.urandom, wall_clock=time.time_ns)
                peer.configure(DeviceChange(private_key=PRIVATE[0], peers=(keepalive,)), 0.0)
                return peer, bytes(peer.start(0.0).transmits[0].datagrams.view)

            peer, recorded = initiation()
            effects = peer.receive(Datagrams.of(await answer_to(recorded)), there, 0.0)
            sock.sendto(effects.transmits[0].datagrams.view, (there.host, there.port))

            async def has_heard_of_it() -> bool:
                return any(pool._device.last_initiation(KEYS[0]))

            await until(has_heard_of_it)
            dead = (await pool.status()).workers[0].pid
            os.kill(dead, signal.SIGKILL)
            await until(lambda: _is_replaced(pool, dead))
            sock.sendto(recorded, (there.host, there.port))
            await answer_to(initiation()[1])

    running(body)


async def _is_replaced(pool: WorkerPool, dead: int) -> bool:
    return (await pool.status()).workers[0].pid not in (dead, 0)


@in_fresh_namespace
def test_a_worker_of_another_version_that_was_installed_meanwhile_is_refused_with_one_line() -> None:
    """It would import what does not belong together, and perhaps misunderstand control."""
    said: list[str] = []

    async def body(pool: WorkerPool) -> None:
        async def has_failed() -> bool:
            return (await pool.status()).workers[0].replaced >= 2

        async def is_there() -> bool:
            return bool((await pool.status()).workers[0].pid)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interpreter, "__version__", "0.0.1")  # what this process is, as it were
            os.kill((await pool.status()).workers[0].pid, signal.SIGKILL)
            await until(has_failed)
        await until(is_there)

    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("wgpy").addHandler(handler)
    running(body)
    assert said[0].endswith("was killed by SIGKILL; another is started")
    assert said[1] == f"(wg0) worker 0: wgpy {__version__} was installed over the running 0.0.1: restart it"
    assert said[2].endswith("ended with status 1; another is started in 0.5 seconds")
    assert not any("Traceback" in line for line in said)
