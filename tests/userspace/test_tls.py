"""TLS in and out, from the beginning and by start_tls, on each event loop, over UDP sockets of the system."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

import wgpy
from tests.adapters.conftest import NAME, _certificate
from tests.userspace.pair import PORT, THERE, configs

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    """Of a client that trusts the server, and of the server."""
    trusting = ssl.create_default_context(cadata=_certificate(tmp_path))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "pem")
    return trusting, serving


def on_each_loop(main: Callable[[wgpy.Stack, wgpy.Stack], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60), over_loopback() as (here, there):
            await main(here, there)

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(bounded())


@asynccontextmanager
async def over_loopback() -> AsyncIterator[tuple[wgpy.Stack, wgpy.Stack]]:
    one, other = configs(("127.0.0.1", "127.0.0.1"))
    silent = replace(other, listen_port=0, peers=(replace(other.peers[0], endpoint=None),))
    async with wgpy.Stack(silent) as there:
        to = wgpy.EndpointName(host="127.0.0.1", port=there.listen_port)
        async with wgpy.Stack(replace(one, listen_port=0, peers=(replace(one.peers[0], endpoint=to),))) as here:
            yield here, there


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Of so many bytes, their hash."""
    size = int(await reader.readline())
    writer.write(hashlib.sha256(await reader.readexactly(size)).digest())
    await writer.drain()
    writer.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = os.urandom(2_000_000)
    writer.write(b"%d\n" % len(data) + data)
    assert await reader.readexactly(32) == hashlib.sha256(data).digest()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


def test_tls_from_the_start_of_the_connection(contexts: Contexts) -> None:
    trusting, serving = contexts

    async def main(here: wgpy.Stack, there: wgpy.Stack) -> None:
        await there.start_server(answer, port=PORT, ssl=serving)
        stream = await here.open_connection(THERE[0], PORT, ssl=trusting, server_hostname=NAME)
        assert stream[1].get_extra_info("ssl_object").version().startswith("TLS")
        assert stream[1].get_extra_info("peername") == (THERE[0], PORT)
        await ask(*stream)
        with pytest.raises(ssl.SSLCertVerificationError):
            await here.open_connection(THERE[0], PORT, ssl=True, server_hostname=NAME)

    on_each_loop(main)


def test_start_tls_on_both_sides(contexts: Contexts) -> None:
    trusting, serving = contexts

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"ready\n")
        await writer.start_tls(serving)
        await answer(reader, writer)

    async def main(here: wgpy.Stack, there: wgpy.Stack) -> None:
        await there.start_server(upgrade, port=PORT)
        reader, writer = await here.open_connection(THERE[0], PORT)
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"ready\n"
        await writer.start_tls(trusting, server_hostname=NAME)
        await ask(reader, writer)

    on_each_loop(main)


def test_sockets_for_libraries_that_take_one() -> None:
    async def main(here: wgpy.Stack, there: wgpy.Stack) -> None:
        loop = asyncio.get_running_loop()
        with await there.listening_socket((None, 0)) as listening:
            sock = await here.connected_socket(THERE[0], listening.getsockname()[1])
            accepted, peer = await loop.run_in_executor(None, _accept, listening)
            assert peer[0] == "10.0.0.1"
            with sock, accepted:
                data = os.urandom(3_000_000)
                sending = loop.create_task(loop.sock_sendall(sock, data))
                accepted.setblocking(False)
                received = b""
                while len(received) < len(data):
                    received += await loop.sock_recv(accepted, 1 << 18)
                await sending
                assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
                sock.shutdown(1)
                assert await loop.sock_recv(accepted, 1) == b""
                await loop.sock_sendall(accepted, b"late")  # half closed
                assert await loop.sock_recv(sock, 10) == b"late"
        await asyncio.sleep(0.2)
        with pytest.raises(ConnectionRefusedError):
            await here.connected_socket(THERE[0], peer[1])

    on_each_loop(main)


def _accept(listening: socket.socket) -> tuple[socket.socket, Any]:
    listening.settimeout(60)
    return listening.accept()
