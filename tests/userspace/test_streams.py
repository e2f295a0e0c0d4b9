"""asyncio's streams and transports on the stack, between two tunnels in memory."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
import socket
import struct
from dataclasses import replace
from typing import Any

import pytest

import wgpy
from tests.userspace.pair import HERE, PORT, THERE, in_virtual_time, two
from wgpy.burst import Burst
from wgpy.stack import ip
from wgpy.stack.departures import finished
from wgpy.stack.news import News
from wgpy.stack.tcp.connection import Connection

LINGER_NOT = struct.pack("ii", 1, 0)
DATA = random.Random(1).randbytes(3_000_000)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("family", [0, 1])
def test_bytes_both_ways_at_once(family: int) -> None:
    async def main() -> None:
        async with two() as (here, there):
            await there.start_server(echo, port=PORT)
            reader, writer = await here.open_connection(THERE[family], PORT)
            assert writer.get_extra_info("peername")[:2] == (THERE[family], PORT)
            assert writer.get_extra_info("sockname")[0] == HERE[family]

            async def send() -> None:
                for at in range(0, len(DATA), 100_000):
                    writer.write(DATA[at : at + 100_000])
                    await writer.drain()
                writer.write_eof()

            sending = asyncio.create_task(send())
            received = await reader.read(-1)
            await sending
            assert hashlib.sha256(received).digest() == hashlib.sha256(DATA).digest()
            writer.close()
            await writer.wait_closed()

    in_virtual_time(main)


def test_errors_are_those_of_asyncios_own_sockets() -> None:
    async def main() -> None:
        async with two() as (here, there):
            with pytest.raises(ConnectionRefusedError, match="Connect call failed") as refused:
                await here.open_connection(THERE[0], 1)
            assert refused.value.errno == errno.ECONNREFUSED
            with pytest.raises(OSError, match="Connect call failed") as unreachable:
                await here.open_connection("10.9.9.9", 1)
            assert unreachable.value.errno == errno.EHOSTUNREACH
            await there.start_server(echo, port=PORT)
            with pytest.raises(OSError, match="already in use") as used:
                await there.start_server(echo, port=PORT)
            assert used.value.errno == errno.EADDRINUSE
            with pytest.raises(OSError, match="Cannot assign") as foreign:
                await there.start_server(echo, "10.9.9.9", PORT)
            assert foreign.value.errno == errno.EADDRNOTAVAIL
            with pytest.raises(wgpy.ResolveError, match="add DNS = ADDRESS"):
                await here.open_connection("db.internal", 1)

    in_virtual_time(main)


def test_a_peer_that_vanishes_causes_a_timeout() -> None:
    network = wgpy.MemoryNetwork(delay=0.01)

    async def main() -> None:
        async with two(network) as (here, there):
            accepted: list[Any] = []
            await there.start_server(lambda *stream: accepted.append(stream), port=PORT)
            reader, writer = await here.open_connection(THERE[0], PORT)
            network.carries = lambda *_: False
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(TimeoutError) as late:
                await here.open_connection(THERE[0], PORT)
            assert late.value.errno == errno.ETIMEDOUT
            assert 100 < loop.time() - began < 140  # the kernel's SYN retries
            writer.write(b"x")
            with pytest.raises(TimeoutError):
                await reader.read()

    in_virtual_time(main)


@pytest.mark.parametrize("by", ["reconfigure", "assignment"])
def test_another_mtu_is_used_at_once(by: str) -> None:
    """By connections that are open, in both directions of change: no datagram is longer than it allows."""
    network = wgpy.MemoryNetwork(delay=0.01)

    async def main() -> None:
        async with two(network) as (here, there):
            await there.start_server(echo, port=PORT)
            reader, writer = await here.open_connection(THERE[0], PORT)
            for mtu in (1420, 1300, 1280, 1420):
                if by == "reconfigure":
                    await here.reconfigure(replace(here.config, mtu=mtu))
                else:
                    here.mtu = mtu
                assert here.mtu == here.device.mtu == mtu
                longest = 0

                def look(source: wgpy.Endpoint, destination: wgpy.Endpoint, datagram: bytes) -> bool:
                    nonlocal longest
                    if source.host == "192.0.2.1":
                        longest = max(longest, len(datagram))
                    return True

                network.carries = look
                writer.write(DATA[:200_000])
                assert await reader.readexactly(200_000) == DATA[:200_000]
                assert longest == mtu + 32
            writer.close()

    in_virtual_time(main)


def test_a_writer_waits_while_nobody_reads_and_a_reset_wakes_it() -> None:
    async def main() -> None:
        async with two() as (here, there):
            accepted: asyncio.Queue[Any] = asyncio.Queue()
            await there.start_server(lambda *stream: accepted.put_nowait(stream), port=PORT, limit=1000)
            _, writer = await here.open_connection(THERE[0], PORT)
            written = 0

            async def write() -> None:
                nonlocal written
                while True:
                    writer.write(bytes(100_000))
                    await writer.drain()
                    written += 100_000

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(write(), 100)
            assert written < 16 << 20
            _, other = await accepted.get()
            other.transport.abort()
            with pytest.raises(ConnectionError):
                await write()

    in_virtual_time(main)


def test_a_reset_while_reading_is_paused_costs_no_memory_for_good() -> None:
    async def main() -> None:
        async with two() as (here, there):
            accepted: asyncio.Queue[Any] = asyncio.Queue()
            await there.start_server(lambda *stream: accepted.put_nowait(stream), port=PORT)
            reader, writer = await here.open_connection(THERE[0], PORT)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            _, other = await accepted.get()
            other.write(bytes(10_000))
            await asyncio.sleep(1)
            other.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            other.close()
            await asyncio.sleep(1)
            assert here._stack.host._budget.promised == 10_000
            writer.close()
            await asyncio.sleep(100)
            assert here._stack.host._budget.promised == there._stack.host._budget.promised == 0

    in_virtual_time(main)


def test_closing_the_tunnel_ends_what_was_opened_through_it() -> None:
    async def main() -> None:
        async with two() as (here, there):
            await there.start_server(echo, port=PORT)
            reader, _ = await here.open_connection(THERE[0], PORT)
            reading = asyncio.create_task(reader.read())
            opening = asyncio.create_task(here.open_connection(THERE[0], PORT))
            await asyncio.sleep(0)
            here.close()
            for task in (reading, opening):
                with pytest.raises(wgpy.TunnelClosedError):
                    await task
            with pytest.raises(wgpy.TunnelClosedError):
                await here.open_connection(THERE[0], PORT)

    in_virtual_time(main)


def test_our_own_addresses_and_localhost_are_reached_without_the_peer() -> None:
    async def main() -> None:
        async with two() as (here, _):
            server = await here.start_server(echo, port=0)
            port = server.sockets[0].getsockname()[1]
            for host in (HERE[0], HERE[1], "localhost", "127.0.0.1"):
                reader, writer = await here.open_connection(host, port)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                writer.close()
            assert await here.ping(HERE[0]) < 1
            assert here.status().peers[0].tx_bytes == 0  # with 0.0.0.0/0 these would go there

    in_virtual_time(main)


def test_a_connection_cancelled_while_it_opens_leaves_nothing() -> None:
    async def main() -> None:
        async with two() as (here, there):
            await there.start_server(echo, port=PORT)
            for delay in (0, 0.005, 0.015):
                opening = asyncio.create_task(here.open_connection(THERE[0], PORT))
                await asyncio.sleep(delay)
                opening.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await opening
            await asyncio.sleep(200)
            assert not here._stack.host._connections
            assert not here._stack.handlers

    in_virtual_time(main)


def test_ping() -> None:
    async def main() -> None:
        async with two() as (here, there):
            for address in THERE:
                assert 0.019 < await here.ping(address, size=2000) < 0.1
            with pytest.raises(OSError, match="No route to host") as unreachable:
                await here.ping("10.9.9.9")
            assert unreachable.value.errno == errno.EHOSTUNREACH
            there.down()
            with pytest.raises(TimeoutError):
                await here.ping(THERE[0], timeout=3)

    in_virtual_time(main)


def test_an_idle_tunnel_never_wakes_the_loop() -> None:
    async def main() -> None:
        async with two() as (here, there):
            await there.start_server(echo, port=PORT)
            reader, writer = await here.open_connection(THERE[0], PORT)
            writer.write(b"hello")
            await reader.readexactly(5)
            await asyncio.sleep(1000)  # WireGuard's timers are over, too
            assert here._stack._timer is None or here._stack._timer_at == float("inf")
            assert here._stack._wakeup is None
            writer.write(b"again")
            assert await reader.readexactly(5) == b"again"

    in_virtual_time(main)


def test_the_packets_that_wait_to_be_handled_together_are_bounded() -> None:
    async def main() -> None:
        async with two() as (here, there):
            await there.start_server(echo, port=PORT)
            reader, writer = await here.open_connection(THERE[0], PORT)
            tun, host = here._stack, here._stack.host
            held = [0]
            handle = host.handle

            def counted(now: float) -> News:
                held.append(0)
                return handle(now)

            host.handle = counted  # type: ignore[method-assign]
            stray = finished(ip.header(bytes(4), host.addresses[0], ip.TCP, 20) + bytes(12) + b"\x50" + bytes(7), b"")
            for _ in range(100):  # in one turn of the loop
                tun.write(Burst.of(stray))
                held[-1] += 1
            assert max(held) <= tun.bursts_at_once
            writer.write(b"still here")
            assert await reader.read(100) == b"still here"

    in_virtual_time(main)


def test_the_answer_to_a_single_packet_leaves_with_the_write() -> None:
    """As with a socket of the system; what is written besides waits for the loop's next turn, to leave together."""

    async def main() -> None:
        async with two() as (here, there):
            await there.start_server(echo, port=PORT)
            reader, writer = await here.open_connection(THERE[0], PORT)
            tun = here._stack
            writer.write(b"question")
            assert await reader.readexactly(8) == b"question"
            connection = next(iter(tun.handlers))
            assert isinstance(connection, Connection)
            writer.write(b"at once")
            sent = connection.sender.next
            assert sent == connection.sender.end
            assert tun.is_dry  # so that no second burst was looked for
            writer.write(b"together")
            writer.write(b"with this")
            assert connection.sender.next == sent
            assert await reader.readexactly(24) == b"at oncetogetherwith this"

    in_virtual_time(main)
