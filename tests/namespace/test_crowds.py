"""`wgpy proxy` and `forward` with the usual limit of 1,024 files, and more connections and flows than that."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.namespace.conftest import PORT, Server
from tests.namespace.test_commands import WEB, WGPY, as_client, chosen, curl
from tests.namespace.test_commands import conf as conf
from tests.namespace.test_commands import web as web

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("network")]

LIMIT = 1024
FULL = "as many connections and flows as the limit of files (ulimit -n) allows"


@contextmanager
def serving(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """`wgpy` with these arguments and the usual limit, once it is ready. It must say once that it is full."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))  # of this process, which is one of the test's own
    command = ["prlimit", f"--nofile={LIMIT}:{LIMIT}", *WGPY, *map(str, arguments), *chosen()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while (line := process.stderr.readline()) != "ready\n":
        assert line
    yield process
    assert len(os.listdir(f"/proc/{process.pid}/fd")) < LIMIT
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert said.count(FULL) == 1
    assert "Too many open files" not in said
    assert "Traceback" not in said
    assert process.returncode == 0


def test_a_thousand_idle_connections_do_not_block_the_proxies(server: Server, conf: Path, web: str) -> None:
    def body() -> None:
        with serving("proxy", conf, "--socks", "1080", "--http", "3128"):
            with socket.create_connection(("127.0.0.1", 3128), 10) as lasting:
                lasting.sendall(f"CONNECT {server.address}:{PORT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert b" 200 " in lasting.recv(1 << 10)
                lasting.sendall(b"take 4\nha")
                time.sleep(0.2)
                with ThreadPoolExecutor(32) as pool:  # fewer at a time than a listener's queue holds
                    idle = list(
                        pool.map(lambda port: socket.create_connection(("127.0.0.1", port)), [1080, 3128] * 500)
                    )
                url = f"http://{server.address}:{WEB}/page"
                assert curl("-x", "socks5h://127.0.0.1:1080", url) == web
                assert curl("-x", "http://127.0.0.1:3128", url) == web
                assert curl("-p", "-x", "http://127.0.0.1:3128", url) == web
                lasting.sendall(b"lf")
                assert lasting.recv(1 << 10) == hashlib.sha256(b"half").digest(), "what is in use goes on"
            for each in idle:
                each.close()

    as_client(server, body)


def test_a_peer_cannot_block_the_forwards(server: Server, conf: Path, web: str) -> None:
    """1,500 senders of one datagram each, and 520 connections that are left open."""
    flags = conf.with_name("flags")
    flags.mkdir()
    flags.chmod(0o777)
    program = f"""
import os, resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
while not os.path.exists({str(flags / "ready")!r}):
    time.sleep(0.05)
for number in range(1500):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("10.8.0.1", 9999))
    if number % 100 == 0:
        time.sleep(0.02)
left_open = []
for _ in range(520):
    left_open.append(socket.create_connection(("10.8.0.1", 8000), 20))
with socket.create_connection(("10.8.0.1", 8000), 20) as sock:
    sock.sendall(b"GET /page HTTP/1.0\\r\\n\\r\\n")
    print(b"".join(iter(lambda: sock.recv(4096), b"")).decode().splitlines()[-1], flush=True)
open({str(flags / "done")!r}, "w").close()
time.sleep(60)
"""
    visitor = server.side.namespace.popen("python3", "-c", program, stdout=subprocess.PIPE)

    def body() -> None:
        local = ("-L", f"8080:{server.address}:{WEB}", "-L", f"9998:{server.address}:{PORT}/udp")
        site = ("python3", "-m", "http.server", "-b", "127.0.0.1", "-d", str(conf.with_name("site")), "8081")
        with (
            subprocess.Popen(site, stderr=subprocess.DEVNULL) as here,
            serving("forward", conf, *local, "-R", "8000:127.0.0.1:8081", "-R", "9999:127.0.0.1:9997/udp"),
        ):
            curl("http://127.0.0.1:8080/page")  # begins the session, without which the far end cannot call
            (flags / "ready").touch()
            until = time.monotonic() + 60
            while not (flags / "done").exists():
                assert time.monotonic() < until
                time.sleep(0.05)
            assert curl("http://127.0.0.1:8080/page") == web
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(10)
                sock.connect(("127.0.0.1", 9998))
                sock.send(b"hello")
                assert sock.recv(100) == b"hello"
            here.kill()

    try:
        as_client(server, body)
        assert visitor.stdout is not None
        assert visitor.stdout.readline() == web
    finally:
        visitor.kill()
        visitor.wait()
