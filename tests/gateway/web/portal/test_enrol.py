"""A phone from its first QR code on: it connects, its session ends, and its person signs in again through its tunnel.

The gateway is `wgpy gateway run --https`, with the firewall and the interface that everybody gets. The browser is in
the phone's network namespace, and the file is what a scanner reads off the browser's screen.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.gateway.enforcement.probes import Probe
from tests.gateway.web.browser import PHONE, Browser, browser
from tests.gateway.web.shown import scanned
from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import WGPY, fresh_name, wait_for
from wgpy.cli import main
from wgpy.config.wgquick import parse

pytestmark = pytest.mark.root
HOST, PASSWORD = "vpn.example.org", "four plain words here"
GATEWAY, INSIDE, SERVER, NAMES = "192.0.2.1", "10.99.0.1", "10.50.0.7", "10.50.0.53"
PROBES = (sys.executable, "-m", "tests.gateway.enforcement.probes")


class World:
    """A gateway, a phone, and a network behind the gateway with a server and a name server."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.directory = directory
        self.host, self.servers, self.phone = (stack.enter_context(Namespace()) for _ in range(3))
        self.places = ["--directory", str(directory / "gateway"), "--key", str(directory / "gateway.key")]
        self.host.run("ip", "address", "add", GATEWAY, "dev", "lo")
        veth_pair(self.host, self.phone, (["203.0.113.1/30"], ["203.0.113.2/30"]), name="client")
        self.phone.run("ip", "route", "add", GATEWAY, "via", "203.0.113.1")
        veth_pair(self.host, self.servers, (["10.50.0.1/24"], [f"{SERVER}/24", f"{NAMES}/24"]), name="lan")
        for ports in (("443",), ("53",)):
            server = self.servers.popen(*PROBES, "serve", *ports, stdout=subprocess.PIPE)
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
        (directory / "password").write_text(PASSWORD)
        for words in (
            f"init --interface {fresh_name()} --host {GATEWAY} --pool 10.99.0.0/24 --dns {NAMES} --data-plane wgpy "
            f"--url https://{HOST} --sign-in --no-second-factor",
            "route add 10.50.0.0/24", "group add staff", "rule add intranet 10.50.0.0/24 --group staff",
            "user add alice --group staff", f"user password alice --password-file {directory / 'password'}",
        ):  # fmt: skip
            self.gateway(words)
        log = stack.enter_context((directory / "log").open("w"))
        self.host.popen(*WGPY, "gateway", "run", *self.places, "--https", "0.0.0.0:443", stdout=log, stderr=log)
        assert wait_for(lambda: "fingerprint" in (directory / "log").read_text(), 20), (directory / "log").read_text()

    def gateway(self, words: str) -> None:
        assert main(["gateway", *words.split(), *self.places]) == 0

    def reached(self) -> set[str]:
        """What the phone reaches through its tunnel."""
        wanted = {
            "portal": Probe("10.99.0.2", INSIDE, "tcp", 443),
            "another port of the gateway": Probe("10.99.0.2", INSIDE, "udp", 51820),
            "names": Probe("10.99.0.2", NAMES, "udp", 53),
            "server": Probe("10.99.0.2", SERVER, "tcp", 443),
        }
        asked = [probe for name, probe in wanted.items() if name != "portal"]
        answers = json.loads(self.phone.run(*PROBES, "ask", input=json.dumps(asked)))
        found = {name for name, answer in zip([*wanted][1:], answers, strict=True) if answer}
        connects = "import socket, sys; socket.create_connection((sys.argv[1], 443), 2, (sys.argv[2], 0))"
        tried = self.phone.popen(sys.executable, "-c", connects, INSIDE, "10.99.0.2", stderr=subprocess.DEVNULL)
        return found | ({"portal"} if tried.wait(10) == 0 else set())

    def browse(self, at: str, steps: str) -> None:
        """Do something in a browser of the phone's, which finds the gateway's name at this address."""

        def body() -> None:
            certificate = self.directory / "gateway" / "https.pem"
            with browser(hosts={HOST: at}, trusting=[certificate]) as chrome:
                chrome.look(size=PHONE)
                chrome.open(f"https://{HOST}/")
                chrome.fill(name="alice", password=PASSWORD)
                chrome.go("Sign in")
                getattr(self, f"_{steps}")(chrome)

        self.phone.call(body)

    def _add(self, chrome: Browser) -> None:
        chrome.go("Add a device")
        chrome.fill(name="phone")
        chrome.press("The gateway")
        chrome.go("Add")
        chrome.screenshot(self.directory / "screen.png")

    def _look(self, chrome: Browser) -> None:
        assert "alice-phone is signed in." in chrome.text
        assert "this device" in chrome.text


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack, tmp_path)


def test_a_phone_connects_by_its_qr_code_and_is_back_after_signing_in_through_its_tunnel(world: World) -> None:
    world.browse(GATEWAY, "add")
    text = scanned((world.directory / "screen.png").read_bytes())
    (address,) = parse(text).config.addresses
    assert str(address.ip) == "10.99.0.2"
    path = world.directory / f"{fresh_name()}.conf"
    path.touch(mode=0o600)
    path.write_text("".join(line for line in text.splitlines(True) if not line.startswith("DNS")))  # of this host
    world.phone.run(forked_wgpy(), "up", str(path))
    everything = {"portal", "names", "server"}
    assert wait_for(lambda: world.reached() == everything, 15), world.reached()

    world.gateway("session terminate alice")
    ended = {"portal", "names"}
    assert wait_for(lambda: world.reached() == ended), world.reached()
    world.browse(INSIDE, "look")
    assert wait_for(lambda: world.reached() == everything), (world.directory / "log").read_text()

    world.gateway("user disable alice")
    assert wait_for(lambda: world.reached() == set()), "who is disabled does not even reach the portal"
