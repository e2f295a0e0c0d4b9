"""The examples of the library, as an unprivileged user, against Debian's wireguard-go."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import wgpy
from tests.adapters.conftest import PAGE, Web
from tests.adapters.conftest import web as web
from tests.interop.conftest import Cable
from tests.interop.conftest import cable as cable
from tests.namespace.conftest import Server
from tests.namespace.conftest import server as server
from tests.support.nobody import NOBODY, as_nobody, let_pass
from tests.support.peers import wait_for
from tests.support.postgres import PASSWORD, postgres

pytestmark = pytest.mark.root

LIBRARY = Path(__file__).parents[2] / "examples" / "library"
PROGRAMS = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(LIBRARY.parents[1])}


@pytest.fixture
def conf(cable: Cable, server: Server) -> Path:
    path = cable.directory / "wg0.conf"
    path.touch(mode=0o600)
    path.write_text(server.text.replace("Address", f"DNS = {server.address}, corp.test\nAddress"))
    os.chown(path, NOBODY, NOBODY)
    let_pass(cable.directory)
    return path


def as_client(server: Server, body: Callable[[], None]) -> None:
    async def main() -> None:
        await asyncio.to_thread(body)

    as_nobody(server.client, main)


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **PROGRAMS, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def test_a_web_page(server: Server, web: Web, conf: Path) -> None:
    def body() -> None:
        done = run(sys.executable, str(LIBRARY / "web_page.py"), str(conf), web.http)
        assert (done.stdout, done.returncode) == (f"{PAGE}\n", 0), done.stderr
        done = run(sys.executable, str(LIBRARY / "web_page.py"), str(conf), web.https)
        assert done.returncode == 1
        assert "CERTIFICATE" in done.stderr
        assert "Traceback" not in done.stderr

    as_client(server, body)


def test_a_database_query(server: Server, web: Web, conf: Path) -> None:
    """Against PostgreSQL, by a name of the tunnel's DNS; and its own client by `wgpy exec`, and a forward by hand."""
    database = ("postgresql://postgres@web.corp.test/postgres", "SELECT n, n * n FROM generate_series(1, 3) AS n")
    program = (sys.executable, str(LIBRARY / "database.py"), str(conf))

    def body() -> None:
        done = run(*program, *database, PGPASSWORD=PASSWORD)
        assert (done.stdout, done.returncode) == ("1\t1\n2\t4\n3\t9\n", 0), done.stderr
        done = run(*program, *database, PGPASSWORD="wrong")
        assert (done.returncode, done.stderr) == (
            1, 'database: password authentication failed for user "postgres"\n',
        )  # fmt: skip
        done = run(*program, "postgresql://postgres@nowhere.corp.test/x", "SELECT 1", PGPASSWORD=PASSWORD)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        psql = ("psql", "-h", "web.corp.test", "-U", "postgres", "-Atc", "SELECT 6 * 7")
        done = run(sys.executable, "-m", "wgpy", "exec", str(conf), "--", *psql, PGPASSWORD=PASSWORD)
        assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr
        with wgpy.blocking.connect(conf) as tunnel, tunnel.forwarded("web.corp.test", 5432) as (host, port):
            numeric = ("psql", "-h", host, "-p", str(port), *psql[3:])
            assert run(*numeric, PGPASSWORD=PASSWORD).stdout == "42\n"

    with postgres(server.side.namespace, server.address):
        as_client(server, body)


def test_five_tunnels_at_once(server: Server, web: Web, conf: Path) -> None:
    configs = [str(conf)]
    for number in range(10, 14):
        key = wgpy.PrivateKey.generate()
        peer = ("peer", key.public_key.base64(), "allowed-ips", f"10.8.0.{number}/32,fd08::{number}/128")
        server.side.namespace.run("wg", "set", server.side.name, *peer)
        path = conf.with_name(f"wg{number}.conf")
        text = conf.read_text().replace("10.8.0.1/", f"10.8.0.{number}/").replace("fd08::1/", f"fd08::{number}/")
        path.write_text(re.sub(r"PrivateKey = \S+", f"PrivateKey = {key.base64()}", text))
        os.chown(path, NOBODY, NOBODY)
        configs.append(str(path))

    def body() -> None:
        done = run(sys.executable, str(LIBRARY / "scraper.py"), web.http, *configs, "/nonexistent.conf")
        for config in configs:
            assert f"{config}: 200, {len(PAGE)} bytes" in done.stdout, done.stderr
        assert "/nonexistent.conf: " in done.stdout

    as_client(server, body)


def test_a_service(server: Server, web: Web, conf: Path) -> None:
    def body() -> None:
        heeding = ("env", "--default-signal=INT")  # even if the tests run in the background
        command = (*heeding, sys.executable, str(LIBRARY / "service.py"), str(conf), "8081")
        environment = {**os.environ, **PROGRAMS}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as it:
            assert it.stdout is not None
            said = it.stdout.readline()
            heard = wait_for(answered.exists)
            it.send_signal(signal.SIGINT)
            assert it.communicate(timeout=10) == ("", "")
            assert (it.returncode, heard) == (0, True)
        assert said == "serving on http://10.8.0.1:8081 and http://[fd08::1]:8081\n"

    answered = conf.with_name("answered")
    ask = f"until curl -s -m 5 http://10.8.0.1:8081/x; do sleep 0.1; done; touch {answered}"
    caller = server.side.namespace.popen("bash", "-c", ask, stdout=subprocess.PIPE)
    as_client(server, body)
    assert caller.communicate(timeout=10)[0] == '{"caller": "10.8.0.2", "path": "/x"}'


def test_a_ci_job(cable: Cable, server: Server, web: Web, conf: Path) -> None:
    content = conf.read_text()
    program = cable.directory / "wgpy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m wgpy "$@"\n')
    program.chmod(0o755)
    path = f"{cable.directory}:{os.environ['PATH']}"

    def body() -> None:
        done = run(str(LIBRARY / "ci_job.sh"), "curl", "-s", web.http, WG_CONF=content, PATH=path)
        assert PAGE in done.stdout, done.stderr
        assert done.returncode == 0
        assert run(str(LIBRARY / "ci_job.sh"), "false", WG_CONF=content, PATH=path).returncode == 1
        silent = content.replace(":51821", ":1")
        assert run(str(LIBRARY / "ci_job.sh"), "true", WG_CONF=silent, PATH=path).returncode != 0

    as_client(server, body)
