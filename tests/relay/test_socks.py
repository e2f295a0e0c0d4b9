"""The SOCKS5 proxy between this host and itself."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Any

import pytest

from tests.relay.helpers import ANY_PORT, HOST, NOWHERE, admission, echo, port_of, receive, run, shouting, talk, udp_to
from wgpy.config.services import Proxy
from wgpy.net.streams import Stream
from wgpy.relay.networks import HostNetwork
from wgpy.relay.socks import serve_socks


async def socks(proxy_port: int, request: bytes, *, greeting: bytes = b"\x05\x01\x00") -> tuple[Stream, bytes]:
    """A connection after greeting and request, and the first bytes of the reply: version, code, 0, kind."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy_port)
    writer.write(greeting)
    assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(request)
    return (reader, writer), await reader.readexactly(4)


def connect_to(host: str, port: int) -> bytes:
    return b"\x05\x01\x00\x03" + bytes((len(host),)) + host.encode() + struct.pack("!H", port)


def test_socks_connects_by_name_and_by_address() -> None:
    async def main() -> None:
        proxy = await serve_socks(Proxy("socks5", ANY_PORT), HOST, admission())
        async with shouting() as port, proxy:
            by_address = b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + struct.pack("!H", port)
            for request in (connect_to("localhost", port), by_address):
                (reader, writer), reply = await socks(port_of(proxy), request)
                assert reply == b"\x05\x00\x00\x01"
                await reader.readexactly(6)
                assert await talk((reader, writer), b"hello") == b"HELLO"

    run(main)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (connect_to("127.0.0.1", NOWHERE), 5),
        (connect_to("no-such-name.invalid", 80), 4),
        (b"\x05\x02\x00\x01" + bytes(6), 7),  # BIND
        (b"\x05\x01\x00\x09", 8),
    ],
)
def test_socks_reports_why_a_connection_failed(request_: bytes, code: int) -> None:
    async def main() -> None:
        async with await serve_socks(Proxy("socks5", ANY_PORT), HOST, admission()) as proxy:
            (_, writer), reply = await socks(port_of(proxy), request_)
            assert reply[1] == code
            writer.close()

    run(main)


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\x04\x01\x00\x50", b"\x05", b"\x05\x01\x02", b""])
def test_socks_closes_the_connection_on_garbage(rubbish: bytes) -> None:
    async def main() -> None:
        async with await serve_socks(Proxy("socks5", ANY_PORT), HOST, admission()) as proxy:
            answer = await talk(await asyncio.open_connection("127.0.0.1", port_of(proxy)), rubbish)
            assert answer in (b"", b"\x05\xff")

    run(main)


@pytest.mark.parametrize("name", [b"a..b", b"a\0b", b"a" * 64])
def test_socks_answers_an_impossible_name(name: bytes) -> None:
    async def main() -> None:
        async with await serve_socks(Proxy("socks5", ANY_PORT), HOST, admission()) as proxy:
            asked = b"\x05\x01\x00\x05\x01\x00\x03" + bytes((len(name),)) + name + b"\x00\x50"
            answer = await talk(await asyncio.open_connection("127.0.0.1", port_of(proxy)), asked)
            assert answer[:4] == b"\x05\x00\x05\x04"  # host unreachable

    run(main)


@pytest.mark.parametrize(("password", "passes"), [(b"secret", True), (b"wrong", False)])
def test_socks_requires_the_password(password: bytes, passes: bool) -> None:
    async def main() -> None:
        proxy = await serve_socks(Proxy("socks5", ANY_PORT, "me", "secret"), HOST, admission())
        async with proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
            writer.write(b"\x05\x02\x00\x02")
            assert await reader.readexactly(2) == b"\x05\x02"
            writer.write(b"\x01\x02me" + bytes((len(password),)) + password)
            assert await reader.readexactly(2) == (b"\x01\x00" if passes else b"\x01\x01")
            if not passes:
                assert await reader.read() == b""
            writer.close()

    run(main)


def test_socks_carries_datagrams_while_the_connection_lasts() -> None:
    async def main() -> None:
        proxy = await serve_socks(Proxy("socks5", ANY_PORT), HOST, admission())
        async with echo() as port, proxy:
            (reader, writer), reply = await socks(port_of(proxy), b"\x05\x03\x00\x01" + bytes(6))
            assert reply == b"\x05\x00\x00\x01"
            bound = await reader.readexactly(6)
            with udp_to(int.from_bytes(bound[4:])) as sock:
                there = struct.pack("!H", port)
                by_name = b"\x00\x00\x00\x03\x09localhost" + there
                by_address = b"\x00\x00\x00\x01\x7f\x00\x00\x01" + there
                sock.send(b"\x00\x00\x01" + by_address[3:] + b"a fragment, which is dropped")
                sock.send(b"short")
                for header in (by_address, by_name):
                    sock.send(header + b"hello")
                    assert await receive(sock) == by_address + b"hello"
                writer.close()
                await writer.wait_closed()
                with suppress(ConnectionRefusedError):
                    while True:
                        sock.send(by_address + b"anybody?")
                        await asyncio.sleep(0.01)

    run(main)


def test_nobody_can_take_over_the_datagrams_of_a_client_that_named_no_port() -> None:
    """The first sender on a host once took over the association, and got the client's replies."""

    async def main() -> None:
        async with echo() as port, await serve_socks(Proxy("socks5", ANY_PORT), HOST, admission()) as proxy:
            (reader, writer), _ = await socks(port_of(proxy), b"\x05\x03\x00\x01" + bytes(6))
            bound = int.from_bytes((await reader.readexactly(6))[4:])
            header = b"\x00\x00\x00\x01\x7f\x00\x00\x01" + struct.pack("!H", port)
            with udp_to(bound) as thief, udp_to(bound) as client:
                thief.send(header + b"first")
                assert await receive(thief) == header + b"first"
                client.send(header + b"mine")
                assert await receive(client) == header + b"mine"
                with pytest.raises(BlockingIOError):
                    thief.recv(100)
            writer.close()

    run(main)


def test_datagrams_are_accepted_only_from_the_port_that_the_client_named() -> None:
    async def main() -> None:
        async with echo() as port, await serve_socks(Proxy("socks5", ANY_PORT), HOST, admission()) as proxy:
            with udp_to(1) as client:
                own = struct.pack("!H", client.getsockname()[1])
                (reader, writer), _ = await socks(port_of(proxy), b"\x05\x03\x00\x01" + bytes(4) + own)
                bound = int.from_bytes((await reader.readexactly(6))[4:])
                header = b"\x00\x00\x00\x01\x7f\x00\x00\x01" + struct.pack("!H", port)
                client.connect(("127.0.0.1", bound))
                with udp_to(bound) as thief:
                    thief.send(header + b"first")
                    client.send(header + b"mine")
                    assert await receive(client) == header + b"mine"
                    with pytest.raises(BlockingIOError):
                        thief.recv(100)
            writer.close()

    run(main)


def test_a_bounded_number_of_datagrams_waits_for_a_name_lookup() -> None:
    class Silent(HostNetwork):
        def __init__(self) -> None:
            self.asked = 0
            self.answered = asyncio.Event()

        async def getaddrinfo(self, host: str, port: int, *, type: int) -> list[Any]:
            self.asked += 1
            await self.answered.wait()
            raise OSError("no such name")

    async def main() -> None:
        network = Silent()
        async with await serve_socks(Proxy("socks5", ANY_PORT), network, admission()) as proxy:
            (reader, writer), _ = await socks(port_of(proxy), b"\x05\x03\x00\x01" + bytes(6))
            bound = int.from_bytes((await reader.readexactly(6))[4:])
            before = len(asyncio.all_tasks())
            with udp_to(bound) as client:
                for number in range(1000):
                    client.send(b"\x00\x00\x00\x03\x04%04d\x00\x35x" % number)
                    if number % 50 == 0:
                        await asyncio.sleep(0.001)
                assert len(asyncio.all_tasks()) <= before + 64
                assert network.asked <= 1
            network.answered.set()
            writer.close()

    run(main)


def test_silent_connections_do_not_block_the_proxy() -> None:
    async def main() -> None:
        async with shouting() as port, await serve_socks(Proxy("socks5", ANY_PORT), HOST, admission(100)) as proxy:
            (first, lasting), reply = await socks(port_of(proxy), connect_to("127.0.0.1", port))
            assert reply[1] == 0
            await first.readexactly(6)
            lasting.write(b"in use")
            await asyncio.sleep(0.05)
            idle = []
            for _ in range(250):
                idle += [await asyncio.open_connection("127.0.0.1", port_of(proxy))]
            (reader, writer), reply = await socks(port_of(proxy), connect_to("127.0.0.1", port))
            assert reply[1] == 0
            await reader.readexactly(6)
            assert await talk((reader, writer), b"new") == b"NEW"
            assert await talk((first, lasting), b"!") == b"IN USE!"
            for _, other in idle:
                other.close()

    run(main)
