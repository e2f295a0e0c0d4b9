"""The examples run and do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.conftest import Cable
from tests.support.peers import Wgpy, peer_section, wait_for

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_device_pair_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "device_pair.py"], capture_output=True, text=True, check=True, timeout=30
    )
    assert [line.split(": ")[1] for line in done.stdout.splitlines()[:3]] == [
        "type 1, 148 bytes",
        "type 2, 92 bytes",
        "type 4, 64 bytes",
    ]
    assert "delivered: ['45000014" in done.stdout


@pytest.mark.root
def test_the_tunnel_example_runs(cable: Cable) -> None:
    daemon = Wgpy(cable.right, cable.directory, peer_section(cable.left))
    cable.cleanup.callback(daemon.close)
    path = cable.directory / "own.conf"
    path.touch(mode=0o600)
    left = cable.left
    path.write_text(
        f"[Interface]\nPrivateKey = {left.key.base64()}\nAddress = {left.inner4}/24\nListenPort = {left.port}\n"
        f"{peer_section(cable.right)}\n"
    )
    program = [sys.executable, str(EXAMPLES / "tunnel.py"), str(path), "4"]
    process = left.namespace.popen(*program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert wait_for(lambda: left.inner4 in left.namespace.run("ip", "route", "show", "table", "local"))
    left.namespace.run("ping", "-c", "2", "-i", "0.2", "-W", "5", cable.right.inner4)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert "is up on UDP port 51820" in said
    assert f"handshake_completed: {cable.right.public_key}" in said
    assert "bytes received" in said


@pytest.mark.root
@pytest.mark.timeout(300)
def test_the_demo_runs() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0% packet loss" in done.stdout
    assert "latest handshake" in done.stdout
    assert "are removed" in done.stdout
