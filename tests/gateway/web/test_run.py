"""The web server in the gateway's own process: whoever attacks it does not stop the gateway."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.forked import forked_wgpy
from tests.support.peers import WGPY, fresh_name, wait_for
from wgpy.gateway.web.server import MOST

pytestmark = pytest.mark.root


def test_strangers_that_fill_the_web_server_leave_the_gateway_its_work(tmp_path: Path) -> None:
    places = ["--directory", str(tmp_path / "gateway"), "--key", str(tmp_path / "gateway.key")]
    name = fresh_name()

    def gateway(*words: str) -> str:
        command = (forked_wgpy(), "gateway", *words, *places)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def token_answer() -> str:
        curl = [
            "curl",
            "-sS",
            "--cacert",
            str(tmp_path / "gateway" / "https.pem"),
            "-H",
            f"Authorization: Bearer {token}",
        ]
        done = subprocess.run([*curl, f"{url}/api/v1/users"], capture_output=True, text=True, check=False)
        return done.stdout

    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    url = f"https://localhost:{port}"
    gateway(
        "init",
        "--interface",
        name,
        "--host",
        "192.0.2.1",
        "--pool",
        "10.99.0.0/24",
        "--data-plane",
        "wgpy",
        "--url",
        url,
    )
    token = gateway("token", "add", "ci", "--scope", "read").strip()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*WGPY, "gateway", "run", "--https", f"127.0.0.1:{port}", *places], stderr=log)
    try:
        assert wait_for(lambda: '"total":0' in token_answer(), 30)
        with ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(2 * MOST)]
            for client in silent[::2]:
                client.sendall(b"\x16\x03\x01\x02\x00\x01")  # as much of a TLS handshake as makes one wait
            assert wait_for(lambda: '"total":0' in token_answer(), 30)
            assert len(os.listdir(f"/proc/{process.pid}/fd")) < MOST + 100
            assert json.loads(gateway("status", "--json"))["healthy"] is True
        gateway("user", "add", "alice")
        assert '"total":1' in token_answer()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        said = (tmp_path / "log").read_text()
        assert "Traceback" not in said
        assert said.count("connections; those idle for longest are closed") == 1
    finally:
        process.kill()
        gateway("stop")
