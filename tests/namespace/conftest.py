"""A WireGuard server behind Debian's wireguard-go, and a configuration with which to reach it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import pytest

import wgpy
import wgpy.blocking
from tests.interop.conftest import Cable
from tests.interop.conftest import cable as cable
from tests.support.netns import Namespace
from tests.support.peers import Side, WireguardGo, peer_section
from wgpy.config import wgquick
from wgpy.config.values import InterfaceConfig

PORT = 8080
NETWORK = "WGPY_TEST_NETWORK"  # the environment variable


@dataclass
class Server:
    """What is at the far end of a cable. `config` is of who calls from `client`."""

    client: Namespace
    side: Side
    config: InterfaceConfig
    text: str

    @property
    def address(self) -> str:
        return self.side.inner4

    def run_beside(self, *command: str) -> None:
        """Run a server there that says "ready"; it ends with its namespace."""
        process = self.side.namespace.popen(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"


@pytest.fixture(params=["namespace", "stack"])
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A test with each network: what `connect` and the commands take if the test does not say."""
    for module in (wgpy, wgpy.blocking):
        monkeypatch.setattr(module, "connect", partial(module.connect, network=request.param))
    monkeypatch.setenv(NETWORK, request.param)
    return str(request.param)


@pytest.fixture
def server(cable: Cable) -> Server:
    """Behind wireguard-go: `tests.namespace.serve` on PORT of its IPv4 and IPv6 addresses."""
    left, right = cable.left, cable.right
    interface = WireguardGo(right, peer_section(left, endpoint=None))
    cable.cleanup.callback(interface.close)
    lines = ["[Interface]", f"PrivateKey = {left.key.base64()}", f"Address = {left.inner4}/24, {left.inner6}/64"]
    text = "\n".join([*lines, peer_section(right), ""])
    found = Server(left.namespace, right, wgquick.parse(text).config, text)
    for address in (right.inner4, right.inner6):
        found.run_beside(sys.executable, "-m", "tests.namespace.serve", address, str(PORT))
    return found
