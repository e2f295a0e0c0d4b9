"""Servers and clients for the tests of forwards and proxies, all on this host and without a tunnel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from wgpy.config.services import Place
from wgpy.net.admission import Admission
from wgpy.net.streams import Stream
from wgpy.relay.networks import HostNetwork

ANY_PORT = Place("127.0.0.1", 0)
NOWHERE = 1  # a port on which nobody listens
HOST = HostNetwork()


def admission(capacity: int = 10_000) -> Admission:
    return Admission(capacity, "connections")


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Runs a test with each event loop that wgpy may use: they differ in how connections end."""

    async def in_time() -> None:
        async with asyncio.timeout(20):
            await main()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:  # they end by themselves
                await asyncio.wait(others)
            for _ in range(3):  # turns in which transports close
                await asyncio.sleep(0)

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(in_time())


def port_of(listener: Any) -> int:
    sock = listener.sockets[0] if hasattr(listener, "sockets") else listener.get_extra_info("socket")
    return int(sock.getsockname()[1])


@asynccontextmanager
async def shouting() -> AsyncIterator[int]:
    """A TCP server that reads until the end, and then answers in capitals."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield port_of(server)


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        self.transport.sendto(data, sender)


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    yield port_of(transport)
    transport.close()


async def talk(stream: Stream, said: bytes) -> bytes:
    """Send data and the end of the stream, and read until the other side has ended as well."""
    reader, writer = stream
    writer.write(said)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def receive(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, 65536)


def udp_to(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect(("127.0.0.1", port))
    return sock
