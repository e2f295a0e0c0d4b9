"""The HTTP proxy between this host and itself."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import requests

from tests.relay.helpers import ANY_PORT, HOST, NOWHERE, admission, port_of, run
from tests.support.tools import needs
from wgpy.config.services import Proxy
from wgpy.net.streams import reset
from wgpy.relay.http import serve_http

POST = b"POST http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n"


@asynccontextmanager
async def origin(
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", *, stays: bool = True
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers each request alike, and what it was told on each connection.

    One that `stays` does not care for Connection: close.
    """
    told: list[bytes] = []
    staying: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(b"")
        place = len(told) - 1
        staying.append(writer)
        answered = 0
        while data := await reader.read(65536):
            told[place] += data
            while told[place].count(b"\r\n\r\n") > answered:
                answered += 1
                writer.write(answer)
                if not stays:
                    await writer.drain()
                    writer.close()
                    return
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield port_of(server), told
        for writer in staying:
            writer.close()


@asynccontextmanager
async def proxied(proxy: Proxy | None = None) -> AsyncIterator[int]:
    async with await serve_http(proxy or Proxy("http", ANY_PORT), HOST, admission()) as server:
        yield port_of(server)


async def ask(port: int, head: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    answer = await reader.read()
    writer.close()
    return answer


def test_http_connect_and_a_plain_request() -> None:
    async def main() -> None:
        proxy = await serve_http(Proxy("http", ANY_PORT), HOST, admission())
        async with origin(stays=False) as (port, heads), proxy:
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
        (b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % NOWHERE, b"502"),
        (b"CONNECT a..b:80 HTTP/1.1\r\nHost: x\r\n\r\n", b"502"),
        (b"CONNECT nowhere HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"CONNECT :80 HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET http://\xff/ HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"rubbish\r\n\r\n", b"400"),
        (b"x" * 600_000, b"431"),
        (b"GET http://127.0.0.1/ HTTP/1.1\r\n\r\n", b"400"),  # without Host
        (b"GET http://127.0.0.1/ HTTP/1.1\nHost: x\n\n", b"400"),
        (b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\nX: a\nCookie: b\r\n\r\n", b"400"),
        (b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\nX: a\rCookie: b\r\n\r\n", b"400"),
        (b"GET http://127.0.0.1/ HTTP/2.0\r\nHost: x\r\n\r\n", b"505"),
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", b"400"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", b"501"),
        (POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    ],
)
def test_http_reports_why_a_connection_failed(head: bytes, status: bytes) -> None:
    async def main() -> None:
        async with await serve_http(Proxy("http", ANY_PORT), HOST, admission()) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
            writer.write(head)
            assert (await reader.readline()).startswith(b"HTTP/1.1 " + status)
            writer.close()

    run(main)


def test_http_requires_the_password() -> None:
    async def main() -> None:
        proxy = await serve_http(Proxy("http", ANY_PORT, "me", "secret"), HOST, admission())
        async with origin() as (port, heads), proxy:
            first = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n" % port
            for line in (b"", b"Proxy-Authorization: Basic bWU6d3Jvbmc=\r\n"):
                answer = await ask(port_of(proxy), first + line + b"\r\n")
                assert answer.startswith(b"HTTP/1.1 407 ")
                assert b"Proxy-Authenticate: Basic" in answer
            assert heads == []
            right = b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"
            assert (await ask(port_of(proxy), first + right + b"\r\n")).endswith(b"hi")
            assert b"Proxy-Auth" not in heads[0]

    run(main)


def test_bytes_after_the_first_request_reach_no_server() -> None:
    """A server that kept its connection open once got the client's next requests, whatever host they were for."""

    async def main() -> None:
        async with origin() as (port, told), origin() as (other, _), proxied() as proxy:
            first = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % port
            secret = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nCookie: secret\r\n\r\n" % other
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy)
            writer.write(first)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"\r\nconnection: close\r\n" in head.lower()
            writer.write(secret)
            assert await reader.read() == b"hi"
            writer.close()
            assert b"hi" in await ask(proxy, first + secret)
            assert all(b"secret" not in heard and b"%d" % other not in heard for heard in told)

    run(main)


@needs("curl")
def test_requests_and_curl_keep_sites_apart() -> None:
    async def main() -> None:
        me = Proxy("http", ANY_PORT, "me", "secret")
        async with origin() as (one, first), origin() as (two, second), proxied(me) as proxy:
            urls = [f"http://127.0.0.1:{one}/one", f"http://127.0.0.1:{two}/two"]
            by = f"http://me:secret@127.0.0.1:{proxy}"

            def fetch() -> list[str]:
                with requests.Session() as session:
                    session.trust_env = False
                    return [
                        session.get(url, proxies={"http": by}, headers={"Authorization": url[-3:]}, timeout=10).text
                        for url in urls
                    ]

            assert await asyncio.to_thread(fetch) == ["hi", "hi"]
            command = ["curl", "-sS", "-m", "10", "--noproxy", "", "-x", by, "-H", "Cookie: a=b", *urls]
            curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            assert (await curl.communicate())[0] == b"hihi"
            assert len(first) == len(second) == 2
            assert all(b"/one" in heard and b"two" not in heard for heard in first)
            assert all(b"/two" in heard and b"one" not in heard for heard in second)
            assert all(b"proxy-" not in heard.lower() and heard.count(b"HTTP/1.1") == 1 for heard in first + second)

    run(main)


def test_hop_by_hop_fields_are_removed_and_host_is_the_targets() -> None:
    async def main() -> None:
        answer = b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\nTE: x\r\nContent-Length: 2\r\n\r\nhi"
        async with origin(answer) as (port, told), proxied() as proxy:
            fields = b"Host: other.example\r\nConnection: X-Mine, Host, Content-Length\r\nX-Mine: 1\r\nX-Kept: 1\r\n"
            more = (
                b"Keep-Alive: 5\r\nTE: trailers\r\nUpgrade: x\r\nProxy-Authorization: Basic x\r\nContent-Length: 4\r\n"
            )
            head = b"POST http://me:pw@127.0.0.1:%d/?q HTTP/1.1\r\n" % port + fields + more
            said = await ask(proxy, head + b"\r\nbody")
            assert b"X-End: 1" in said
            assert b"X-Hop" not in said
            assert b"TE:" not in said
            assert told[0].split(b"\r\n") == [
                b"POST /?q HTTP/1.1",
                b"Host: 127.0.0.1:%d" % port,
                b"X-Kept: 1",
                b"Content-Length: 4",
                b"Connection: close",
                b"",
                b"body",
            ]

    run(main)


def test_a_chunked_body_is_passed_on_exactly() -> None:
    async def main() -> None:
        async with origin() as (port, told), proxied() as proxy:
            head = b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % port
            await ask(proxy, head + b"3;x=y\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
            assert told[0].endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    run(main)


@pytest.mark.parametrize(
    ("answer", "version", "said"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", b"1.1", b"a\r\nto the end\r\n0\r\n\r\n"),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", b"1.0", b"to the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"1.1", b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n", b"1.0", b""),
    ],
)
def test_the_end_of_an_answer_is_marked_as_the_client_understands(answer: bytes, version: bytes, said: bytes) -> None:
    async def main() -> None:
        async with origin(answer, stays=b"304" in answer or b"204" in answer) as (port, _), proxied() as proxy:
            told = await ask(proxy, b"GET http://127.0.0.1:%d/ HTTP/%s\r\nHost: x\r\n\r\n" % (port, version))
            head, _, body = told.partition(b"\r\n\r\n")
            assert body == said
            assert head.startswith(b"HTTP/1.1 " + answer.split(b"HTTP/")[-1][4:7])

    run(main)


@pytest.mark.parametrize(
    "answer",
    [
        b"rubbish\r\n\r\n",
        b"",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
)
def test_a_nonsensical_answer_becomes_bad_gateway(answer: bytes) -> None:
    async def main() -> None:
        async with origin(answer, stays=False) as (port, _), proxied() as proxy:
            said = await ask(proxy, b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % port)
            assert said.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
            assert b"\r\n\r\nwgpy: the server's response is invalid or incomplete" in said

    run(main)


def test_an_answer_that_breaks_off_does_not_look_complete() -> None:
    async def main() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"
        async with origin(answer, stays=False) as (port, _), proxied() as proxy:
            with pytest.raises(ConnectionResetError):
                await ask(proxy, b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % port)

    run(main)


def test_a_body_waits_for_continue_and_a_refusal_needs_no_body() -> None:
    async def main() -> None:
        for answer, sent in ((b"HTTP/1.1 100 Continue\r\n\r\n", True), (b"HTTP/1.1 417 No\r\n\r\n", False)):
            async with origin(answer, stays=sent) as (port, told), proxied() as proxy:
                reader, writer = await asyncio.open_connection("127.0.0.1", proxy)
                fields = b"Host: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
                writer.write(b"POST http://127.0.0.1:%d/ HTTP/1.1\r\n" % port + fields)
                assert (await reader.readline())[9:12] == answer[9:12]
                assert told[0].endswith(b"Content-Length: 4\r\nConnection: close\r\n\r\n")
                writer.write(b"body")
                while sent and not told[0].endswith(b"\r\n\r\nbody"):  # noqa: ASYNC110 (told by the server)
                    await asyncio.sleep(0.01)
                reset(writer)  # to end its side alone would leave the proxy waiting for the answer

    run(main)


def test_bodies_of_any_length_pass_both_ways_in_bounded_memory() -> None:
    size = 24 << 20

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            left = size
            while left:
                left -= len(await reader.read(1 << 16))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size >> 16):
                writer.write(bytes(1 << 16))
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, proxied() as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy)
            there = b"http://127.0.0.1:%d/" % port_of(server)
            writer.write(b"POST " + there + b" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            tracemalloc.start()
            for _ in range(size >> 16):
                writer.write(bytes(1 << 16))
                await writer.drain()
            await reader.readuntil(b"\r\n\r\n")
            received = 0
            while data := await reader.read(1 << 16):
                received += len(data)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            writer.close()
            assert received == size
            assert peak < 8 << 20

    run(main)


def test_a_client_that_ends_its_side_and_reads_slowly_gets_all_of_the_answer() -> None:
    async def main() -> None:
        body = b"x" * 60_000  # more than these sockets hold, and less than makes the proxy wait
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        proxy = await serve_http(Proxy("http", ANY_PORT), HOST, admission())
        proxy.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async with origin(answer, stays=False) as (port, _), proxy:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                sock.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(sock, ("127.0.0.1", port_of(proxy)))
                await loop.sock_sendall(sock, b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % port)
                sock.shutdown(socket.SHUT_WR)
                await asyncio.sleep(0.2)  # the proxy has the whole answer by then
                said = b""
                while data := await loop.sock_recv(sock, 4096):
                    said += data
            assert said.endswith(b"\r\n\r\n" + body)

    run(main)


def test_a_client_that_leaves_ends_its_request() -> None:
    async def main() -> None:
        left = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()
            left.set()
            writer.close()

        asked = asyncio.Event()
        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server, proxied() as proxy:
            _, writer = await asyncio.open_connection("127.0.0.1", proxy)
            writer.write(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % port_of(server))
            await asked.wait()
            writer.transport.abort()
            reset(writer)
            await asyncio.wait_for(left.wait(), 15)

    run(main)
