"""The listeners and connections, over real sockets."""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
import ssl
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Event

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.gateway.web.conftest import serving
from tests.support.peers import wait_for
from tests.support.tools import needs
from wgpy.errors import ControlError
from wgpy.gateway.web import server
from wgpy.gateway.web.certificate import own_certificate

BIG = 32 << 20
DONE: list[str] = []
ASKED, GO_ON = Event(), Event()  # of the slow handler


def peer(request: Request) -> Response:
    return JSONResponse({"peer": request.state.peer, "from": request.client and request.client.host})


async def body(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


def big(request: Request) -> Response:
    return StreamingResponse(bytes(64 << 10) for _ in range(BIG >> 16))


def slow(request: Request) -> Response:
    ASKED.set()
    assert GO_ON.wait(30)
    DONE.append("done")
    return PlainTextResponse("slow")


@pytest.fixture
def app() -> ASGIApp:
    return Starlette(
        routes=[
            Route("/", peer),
            Route("/body", body, methods=["POST"]),
            Route("/big", big),
            Route("/slow", slow),
        ]
    )


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "https.pem"
    own_certificate(path, "https://localhost", datetime.now(UTC))
    return path


@pytest.fixture
def port(app: ASGIApp) -> Iterator[int]:
    """A port without TLS, as behind a proxy."""
    with serving(app, lambda web: web.listen_tcp("127.0.0.1:0", None, ip_address("127.0.0.1"))) as made:
        yield made


def connect(port: int, said: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(said)
    return client


def ask(client: socket.socket, said: bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") -> bytes:
    client.sendall(said)
    answer = client.recv(65536)
    while (length := re.search(rb"content-length: (\d+)", answer)) and answer[-int(length[1]) - 4 :][:4] != b"\r\n\r\n":
        piece = client.recv(65536)
        assert piece, answer
        answer += piece
    return answer


def received_of(client: socket.socket) -> int:
    """How many bytes come until the connection is broken."""
    received = 0
    with suppress(ConnectionResetError):
        while piece := client.recv(1 << 20):
            received += len(piece)
    return received


def connections_at(port: int) -> int:
    """How many connections the server has not closed."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = "01"  # tcp_states.h of the kernel
    return sum(row[1].endswith(f":{port:04X}") and row[3] == established for row in rows)


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(65536) == b""
    except ConnectionResetError:
        return True


@needs("curl")
def test_the_unix_socket_is_for_its_owner_only_and_knows_who_asks(app: ASGIApp, socket_at: Path) -> None:
    with serving(app, lambda web: web.listen_unix(socket_at)):
        assert stat.S_IMODE(socket_at.stat().st_mode) == 0o600
        curl = ["curl", "-sS", "--unix-socket", str(socket_at), "http://gateway/"]
        said = subprocess.run(curl, capture_output=True, check=True, text=True).stdout
        assert said == f'{{"peer":{os.geteuid()},"from":null}}'
        with pytest.raises(ControlError, match="another gateway answers there"):
            listen_as_well(socket_at)
    assert not socket_at.exists()


def listen_as_well(path: Path) -> None:
    with serving(nothing, lambda web: web.listen_unix(path)):
        pass


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve nothing."""


@pytest.mark.root
def test_another_user_cannot_open_the_unix_socket(app: ASGIApp, socket_at: Path) -> None:
    with serving(app, lambda web: web.listen_unix(socket_at)):
        for path in socket_at.parents:
            if path.is_relative_to("/tmp") and path != Path("/tmp"):
                path.chmod(0o755)
        curl = [
            "setpriv",
            "--reuid=65534",
            "--clear-groups",
            "curl",
            "-sS",
            "--unix-socket",
            str(socket_at),
            "http://x/",
        ]
        assert "Permission denied" in subprocess.run([*curl, "-v"], capture_output=True, text=True, check=False).stderr


def test_a_stale_socket_is_replaced_and_a_successors_is_kept(app: ASGIApp, socket_at: Path) -> None:
    with serving(app, lambda web: web.listen_unix(socket_at)):
        socket_at.unlink()
        with closing(socket.socket(socket.AF_UNIX)) as successor:
            successor.bind(str(socket_at))
    assert socket_at.exists()
    with serving(app, lambda web: web.listen_unix(socket_at)):
        assert socket_at.exists()


@needs("curl")
def test_tls_by_our_own_certificate_which_curl_trusts_if_told_so(app: ASGIApp, pem: Path) -> None:
    certificate = own_certificate(pem, "https://localhost", datetime.now(UTC))
    with serving(app, lambda web: web.listen_tcp("127.0.0.1:0", certificate)) as port:
        curl = ["curl", "-sS", f"https://localhost:{port}/"]
        assert subprocess.run(curl, capture_output=True, check=False).returncode == 60  # it trusts none by itself
        done = subprocess.run([*curl, "--cacert", str(pem)], capture_output=True, text=True, check=True)
        assert '"from":"127.0.0.1"' in done.stdout
        old = [*curl, "-k", "--tls-max", "1.1"]
        assert subprocess.run(old, capture_output=True, check=False).returncode == 35
        with closing(connect(port, b"GET / HTTP/1.1\r\n\r\n")) as plain:
            assert is_closed(plain)


def test_a_certificate_that_is_renewed_is_taken_up_by_the_next_connection(app: ASGIApp, pem: Path) -> None:
    certificate = own_certificate(pem, "https://localhost", datetime.now(UTC))
    with serving(app, lambda web: web.listen_tcp("127.0.0.1:0", certificate)) as port:

        def shown() -> str:
            return ssl.get_server_certificate(("127.0.0.1", port))

        first = shown()
        assert first in pem.read_text()
        good = pem.read_text()
        pem.write_text("rubbish")
        assert not wait_for(lambda: shown() != first, 1.5)
        pem.write_text(good)
        own_certificate(pem, "https://127.0.0.1", datetime.now(UTC))
        assert wait_for(lambda: shown() in pem.read_text())
        assert shown() != first


def test_who_says_nothing_or_too_little_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_TIME", 0.3)
    monkeypatch.setattr(server, "BODY_TIME", 0.3)
    with closing(connect(port)) as silent, closing(connect(port, b"GET / HTTP/1.1\r\nHost: ")) as slow:
        assert is_closed(silent)
        assert is_closed(slow)
    with closing(connect(port, b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")) as half:
        assert is_closed(half)
    with closing(connect(port)) as second:  # after an answer, too
        assert b"200 OK" in ask(second)
        second.sendall(b"GET / HTTP/1.1\r\n")
        assert is_closed(second)


def test_a_byte_now_and_then_does_not_keep_a_connection(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_TIME", 0.3)

    with closing(connect(port, b"GET / HTTP/1.1\r\n")) as client, suppress(ConnectionResetError, BrokenPipeError):
        for _ in range(1000):
            if select.select([client], [], [], 0.05)[0]:  # it is closed
                break
            client.sendall(b"X")
        else:
            pytest.fail("it is still open")
        assert client.recv(65536) == b""


def test_who_does_not_take_the_answer_is_closed_and_holds_no_thread(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALL_TIME", 0.3)
    monkeypatch.setattr(server, "THREADS", 1)
    with ExitStack() as stack:
        deaf = [stack.enter_context(closing(connect(port, b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n"))) for _ in range(4)]
        with closing(connect(port)) as other:
            assert b"200 OK" in ask(other)
        assert wait_for(lambda: connections_at(port) == 0)
        assert all(received_of(client) < BIG for client in deaf)


def test_a_handler_goes_on_if_its_client_is_gone(port: int) -> None:
    DONE.clear()
    with closing(connect(port, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert ASKED.wait(30)
    with closing(connect(port)) as other:
        assert b"200 OK" in ask(other)  # so the server has seen that the client is gone
        GO_ON.set()
        assert wait_for(lambda: DONE == ["done"])
        assert b"200 OK" in ask(other)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x00\xff" * 100,
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (20 << 10),
        b"GET /" + b"a" * (20 << 10),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda text: str(text[:20]),
)
def test_rubbish_is_refused_and_no_error_here(rubbish: bytes, port: int, caplog: pytest.LogCaptureFixture) -> None:
    with closing(connect(port)) as client:
        try:
            client.sendall(rubbish)
            answer = client.recv(65536)
            client.sendall(rubbish)
        except OSError:
            answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        assert wait_for(lambda: is_closed(client))
    assert caplog.text == ""


def test_a_websocket_is_not_opened(port: int) -> None:
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with closing(connect(port)) as client:
        assert b"101" not in ask(client, upgrade)[:20]


def test_no_more_connections_than_allowed_and_the_idle_ones_go_first(
    app: ASGIApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "MOST", 8)
    before = len(os.listdir("/proc/self/fd"))
    with (
        serving(app, lambda web: web.listen_tcp("127.0.0.1:0", None, ip_address("127.0.0.1"))) as port,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(closing(connect(port))) for _ in range(40)]
        with closing(connect(port)) as other:
            assert b"200 OK" in ask(other)
        open_here = sum(not is_now_closed(client) for client in clients)
        assert open_here <= 8
        assert len(os.listdir("/proc/self/fd")) - before - len(clients) <= 8 + 8
    assert caplog.text.count("connections; those idle for longest are closed") == 1


def is_now_closed(client: socket.socket) -> bool:
    client.settimeout(0.05)
    try:
        return is_closed(client)
    except TimeoutError:
        return False


@needs("curl")
def test_handshakes_that_do_not_end_count_as_connections(
    app: ASGIApp, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST", 4)
    certificate = own_certificate(pem, "https://localhost", datetime.now(UTC))
    with serving(app, lambda web: web.listen_tcp("127.0.0.1:0", certificate)) as port, ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(port))) for _ in range(20)]
        assert wait_for(lambda: sum(not is_now_closed(client) for client in clients) <= 4)
        assert subprocess.run(["curl", "-sSk", f"https://127.0.0.1:{port}/"], capture_output=True, check=True).stdout


def test_a_connection_that_waits_for_its_client_is_ended_with_the_server(
    app: ASGIApp, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer has closed it, and the server's end closes it again before it aborts it."""
    monkeypatch.setattr(server, "ENDING_TIME", 60.0)  # seconds for the client to close it, too, which it does not
    certificate = own_certificate(pem, "https://localhost", datetime.now(UTC))
    context = ssl.create_default_context(cafile=pem)
    raw = socket.socket()
    ended: list[bool] = []

    async def look() -> None:
        ended.append(await asyncio.to_thread(is_closed, raw))

    with raw, serving(app, lambda web: web.listen_tcp("127.0.0.1:0", certificate), look) as port:
        raw.settimeout(5)
        raw.connect(("127.0.0.1", port))
        client = context.wrap_socket(raw.dup(), server_hostname="localhost")
        with client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while client.recv(65536):
                pass
    assert ended == [True]


def test_the_port_is_closed_even_if_a_connection_cannot_be(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: object) -> None:
        raise RuntimeError("a fault")

    async def main() -> None:
        web = server.WebServer(app)
        port = web.listen_tcp("127.0.0.1:0", None, ip_address("127.0.0.1"))
        client = await asyncio.to_thread(connect, port)
        with client, monkeypatch.context() as faulty:
            assert b"200 OK" in await asyncio.to_thread(ask, client)
            faulty.setattr(server._Connection, "shutdown", fail)
            with pytest.raises(RuntimeError, match="a fault"):
                await web.close()
            with pytest.raises(ConnectionRefusedError):
                connect(port)
        assert await asyncio.to_thread(wait_for, lambda: not web._state.connections)

    asyncio.run(main())


def test_only_the_proxy_may_connect_without_tls(app: ASGIApp) -> None:
    with (
        serving(app, lambda web: web.listen_tcp("127.0.0.1:0", None, ip_address("192.0.2.1"))) as port,
        closing(connect(port)) as client,
    ):
        assert is_closed(client)


@pytest.mark.parametrize("address", ["443", "0.0.0.0:x", "0.0.0.0:70000", "192.0.2.1:0"])
def test_an_address_that_cannot_be_had_is_named(address: str) -> None:
    match = f"--https {address}: "
    with (
        pytest.raises(ControlError, match=match),
        serving(nothing, lambda web: web.listen_tcp(address, None, ip_address("127.0.0.1"))),
    ):
        pass


def test_our_own_certificate_is_kept_until_it_is_of_no_use(pem: Path) -> None:
    now, first = datetime.now(UTC), pem.read_bytes()
    assert stat.S_IMODE(pem.stat().st_mode) == 0o600
    openssl = ["openssl", "x509", "-in", str(pem), "-noout", "-fingerprint", "-sha256"]
    printed = subprocess.run(openssl, capture_output=True, text=True, check=True).stdout
    assert own_certificate(pem, "https://localhost", now).fingerprint() == printed.strip().partition("=")[2]
    assert pem.read_bytes() == first
    own_certificate(pem, "https://localhost", now + timedelta(days=826))
    assert (second := pem.read_bytes()) != first
    own_certificate(pem, "https://[::1]:8443", now)
    assert pem.read_bytes() != second
    pem.write_text("rubbish")
    own_certificate(pem, "https://localhost", now)
