"""Forwards and proxies between this host and itself: the protocols, without a tunnel or privileges."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from wgpy.config.services import Place, Proxy
from wgpy.relay import forward as forwarding
from wgpy.relay.forward import forward_datagrams, forward_streams
from wgpy.relay.http import serve_http
from wgpy.relay.networks import HostNetwork, Stream, reset
from wgpy.relay.socks import serve_socks

ANY_PORT = Place("127.0.0.1", 0)
NOWHERE = 1  # a port on which nobody listens
HOST = HostNetwork()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(20):
            await main()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:  # they end by themselves
                await asyncio.wait(others)
            for _ in range(3):  # turns in which transports close
                await asyncio.sleep(0)

    asyncio.run(in_time())


def port_of(listener: Any) -> int:
    sock = listener.sockets[0] if hasattr(listener, "sockets") else listener.get_extra_info("socket")
    return int(sock.getsockname()[1])


@asynccontextmanager
async def shouting() -> AsyncIterator[int]:
    """A TCP server that reads to the end, and then answers in capitals."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield port_of(server)


@asynccontextmanager
async def web() -> AsyncIterator[tuple[int, list[bytes]]]:
    """An HTTP server of one answer, and the heads of what it was asked."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield port_of(server), heads


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
    """Say it, say that this was all, and hear the other out."""
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


def test_a_forward_passes_bytes_and_each_end_on() -> None:
    async def main() -> None:
        async with shouting() as port:
            listener = await forward_streams(HOST, ANY_PORT, HOST, Place("127.0.0.1", port))
            async with listener:
                said = bytes(range(97, 123)) * 100_000
                assert await talk(await asyncio.open_connection("127.0.0.1", port_of(listener)), said) == said.upper()

    run(main)


def test_a_connection_that_is_closed_already_is_reset_without_harm() -> None:
    async def main() -> None:
        async with shouting() as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.transport.abort()
            await asyncio.sleep(0.01)
            reset(writer)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # which then knows the socket no more
        runner.run(main())


def test_connections_that_the_end_of_the_loop_cuts_off_are_not_failures(caplog: pytest.LogCaptureFixture) -> None:
    """The streams of Python 3.11 say so of each task that was cancelled, and print where."""

    async def main() -> None:
        async with (
            shouting() as port,
            await forward_streams(HOST, ANY_PORT, HOST, Place("127.0.0.1", port)) as listener,
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
            await asyncio.sleep(0.1)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                if "shouting" not in repr(task):
                    task.cancel()  # as asyncio.run does in the end
            writer.close()

    run(main)
    assert caplog.text == ""


def test_a_forward_to_nobody_is_reset() -> None:
    async def main() -> None:
        async with await forward_streams(HOST, ANY_PORT, HOST, Place("127.0.0.1", NOWHERE)) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(main)


def test_each_sender_of_datagrams_gets_its_own_answers() -> None:
    async def main() -> None:
        async with echo() as port:
            listener = await forward_datagrams(HOST, ANY_PORT, HOST, Place("127.0.0.1", port))
            one, other = udp_to(port_of(listener)), udp_to(port_of(listener))
            with one, other:
                for number in range(3):
                    one.send(b"one %d" % number)
                    other.send(b"other %d" % number)
                assert [await receive(one) for _ in range(3)] == [b"one 0", b"one 1", b"one 2"]
                assert [await receive(other) for _ in range(3)] == [b"other 0", b"other 1", b"other 2"]
            listener.close()

    run(main)


def test_an_idle_flow_ends_and_a_new_datagram_begins_another(monkeypatch: pytest.MonkeyPatch) -> None:
    close = forwarding._Flow.close

    async def main() -> None:
        closed: asyncio.Queue[forwarding._Flow] = asyncio.Queue()

        def close_and_tell(flow: forwarding._Flow) -> None:
            close(flow)
            closed.put_nowait(flow)

        monkeypatch.setattr(forwarding._Flow, "close", close_and_tell)
        async with echo() as port:
            listener = await forward_datagrams(HOST, ANY_PORT, HOST, Place("127.0.0.1", port), idle=0.05)
            with udp_to(port_of(listener)) as sock:
                for _ in range(2):
                    sock.send(b"again")
                    assert await receive(sock) == b"again"
                    await closed.get()
            listener.close()

    run(main)


async def socks(proxy_port: int, request: bytes, *, greeting: bytes = b"\x05\x01\x00") -> tuple[Stream, bytes]:
    """A connection that has greeted and asked, and the reply's first bytes: version, code, 0, kind."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy_port)
    writer.write(greeting)
    assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(request)
    return (reader, writer), await reader.readexactly(4)


def connect_to(host: str, port: int) -> bytes:
    return b"\x05\x01\x00\x03" + bytes((len(host),)) + host.encode() + struct.pack("!H", port)


def test_socks_connects_by_name_and_by_address() -> None:
    async def main() -> None:
        proxy = await serve_socks(Proxy("socks5", ANY_PORT), HOST)
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
def test_socks_says_why_not(request_: bytes, code: int) -> None:
    async def main() -> None:
        async with await serve_socks(Proxy("socks5", ANY_PORT), HOST) as proxy:
            (_, writer), reply = await socks(port_of(proxy), request_)
            assert reply[1] == code
            writer.close()

    run(main)


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\x04\x01\x00\x50", b"\x05", b"\x05\x01\x02", b""])
def test_socks_hangs_up_on_rubbish(rubbish: bytes) -> None:
    async def main() -> None:
        async with await serve_socks(Proxy("socks5", ANY_PORT), HOST) as proxy:
            answer = await talk(await asyncio.open_connection("127.0.0.1", port_of(proxy)), rubbish)
            assert answer in (b"", b"\x05\xff")

    run(main)


@pytest.mark.parametrize(("password", "passes"), [(b"secret", True), (b"wrong", False)])
def test_socks_wants_the_password(password: bytes, passes: bool) -> None:
    async def main() -> None:
        proxy = await serve_socks(Proxy("socks5", ANY_PORT, "me", "secret"), HOST)
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
        proxy = await serve_socks(Proxy("socks5", ANY_PORT), HOST)
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


async def ask(port: int, head: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    answer = await reader.read()
    writer.close()
    return answer


def test_http_connect_and_a_plain_request() -> None:
    async def main() -> None:
        proxy = await serve_http(Proxy("http", ANY_PORT), HOST)
        async with web() as (port, heads), proxy:
            place = b"127.0.0.1:%d" % port
            connect = b"CONNECT " + place + b" HTTP/1.1\r\nHost: " + place + b"\r\n\r\nGET /one HTTP/1.1\r\n\r\n"
            assert (await ask(port_of(proxy), connect)).endswith(b"\r\n\r\nhi")
            headers = b"Host: " + place + b"\r\nProxy-Connection: keep-alive\r\nX-Mine: yes\r\n\r\n"
            plain = b"GET http://" + place + b"/two?x=1 HTTP/1.1\r\n" + headers
            assert (await ask(port_of(proxy), plain)).endswith(b"\r\n\r\nhi")
            assert heads[0].startswith(b"GET /one ")
            assert heads[1].startswith(b"GET /two?x=1 HTTP/1.1\r\n")
            assert b"X-Mine: yes\r\n" in heads[1]
            assert b"Connection: close\r\n" in heads[1]
            assert b"Proxy-" not in heads[1]

    run(main)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % NOWHERE, b"502"),
        (b"CONNECT nowhere HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT :80 HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET ftp://x/ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET http://x:99999/ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET http://\xff/ HTTP/1.1\r\n\r\n", b"400"),
        (b"rubbish\r\n\r\n", b"400"),
        (b"x" * 600_000, b"431"),
    ],
)
def test_http_says_why_not(head: bytes, status: bytes) -> None:
    async def main() -> None:
        async with await serve_http(Proxy("http", ANY_PORT), HOST) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
            writer.write(head)
            assert (await reader.readline()).startswith(b"HTTP/1.1 " + status)
            writer.close()

    run(main)


def test_http_wants_the_password() -> None:
    async def main() -> None:
        proxy = await serve_http(Proxy("http", ANY_PORT, "me", "secret"), HOST)
        async with web() as (port, heads), proxy:
            first = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\n" % port
            for line in (b"", b"Proxy-Authorization: Basic bWU6d3Jvbmc=\r\n"):
                answer = await ask(port_of(proxy), first + line + b"\r\n")
                assert answer.startswith(b"HTTP/1.1 407 ")
                assert b"Proxy-Authenticate: Basic" in answer
            assert heads == []
            right = b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"
            assert (await ask(port_of(proxy), first + right + b"\r\n")).endswith(b"hi")
            assert b"Proxy-Auth" not in heads[0]

    run(main)
