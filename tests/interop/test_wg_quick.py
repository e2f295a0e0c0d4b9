"""The stock wg-quick on our daemon, and `wgpy up`: the same file has the same result, and `down` leaves nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace, is_settled
from tests.support.peers import fresh_name, wait_for, wgpy_program
from tests.support.tools import Tools
from wgpy.daemon.uapi_client import socket_path
from wgpy.keys import PrivateKey

pytestmark = pytest.mark.root

KEY = PrivateKey(b"k" * 32).base64()
A, B = (PrivateKey(letter * 32).public_key.base64() for letter in (b"a", b"b"))
ENDPOINT = "Endpoint = 192.0.2.2:51820"
HOOKS = "\n".join(f"{key} = echo {key} %i >>LOG" for key in ("PreUp", "PostUp", "PostUp", "PreDown", "PostDown"))
FILES = {
    "addresses, routes, DNS and hooks": (
        f"DNS = 10.9.0.53, example.org\nDNS = fd09::53\n{HOOKS}\nListenPort = 5001",
        f"AllowedIPs = 10.9.0.0/24, 10.9.3.0/24, 172.16.0.0/12, fd09::/48, fd0a::1\n{ENDPOINT}",
    ),
    "without an endpoint": ("ListenPort = 5001", "AllowedIPs = 10.0.0.0/8"),
    "an MTU, a mark and a table": (
        "MTU = 1300\nFwMark = 0x77\nTable = 1234",
        f"AllowedIPs = 0.0.0.0/0, ::/0\n{ENDPOINT}",
    ),
    "a table by name": ("Table = default", f"AllowedIPs = 10.8.0.0/16, fd08::/64\n{ENDPOINT}"),
    "no routes": ("Table = off", f"AllowedIPs = 0.0.0.0/0, 10.8.0.0/16\n{ENDPOINT}"),
    "keys in any case": (
        "listenport=5001\nmtu=1280\nTABLE = auto",
        "allowedips = 10.8.0.0/16 # there\nendpoint=192.0.2.2:1",
    ),
    "everything": ("DNS = 10.9.0.53", f"AllowedIPs = 0.0.0.0/0, ::/0, 10.8.0.0/16\n{ENDPOINT}"),
    "everything over IPv4, marked": ("FwMark = 99", f"AllowedIPs = 0.0.0.0/0\n{ENDPOINT}"),
    "halves of everything": ("", f"AllowedIPs = 0.0.0.0/1, 128.0.0.0/1, ::/1, 8000::/1\n{ENDPOINT}"),
    "two peers": ("", f"AllowedIPs = 10.8.0.0/16\n{ENDPOINT}\n[Peer]\nPublicKey = {B}\nAllowedIPs = 0.0.0.0/0"),
}


class Host:
    """A namespace with a way out, and a file that both programs are given."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace, self.name, self.log = namespace, fresh_name(), directory / "hooks"
        self.path = directory / f"{self.name}.conf"
        self.path.touch(mode=0o600)
        programs = directory / "programs"
        programs.mkdir()
        self.tools = Tools(programs)
        self.tools.add("resolvconf")
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        self.environment["WG_QUICK_USERSPACE_IMPLEMENTATION"] = str(wgpy_program(directory))
        run = namespace.run
        run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "far-end")
        run("ip", "link", "set", "far-end", "up")
        run("ip", "address", "add", "192.0.2.1/24", "dev", "uplink")
        run("ip", "address", "add", "2001:db8::1/64", "dev", "uplink", "nodad")
        run("ip", "link", "set", "uplink", "mtu", "1400", "up")
        run("ip", "route", "add", "default", "via", "192.0.2.254")
        run("ip", "-6", "route", "add", "default", "via", "2001:db8::ff")

    def write(self, interface: str, peer: str) -> None:
        addresses = "Address = 10.9.0.1/24, fd09::1/64\nAddress=10.77.0.1"
        text = f"[Interface]\nPrivateKey = {KEY}\n{addresses}\n{interface}\n[Peer]\nPublicKey = {A}\n{peer}\n"
        self.path.write_text(text.replace("LOG", str(self.log)))

    def run(self, program: str, verb: str) -> str:
        command = forked_wgpy() if program == "wgpy" else program
        said = self.namespace.run(command, verb, str(self.path), env=self.environment)
        if verb == "down":
            assert wait_for(lambda: not socket_path(self.name).exists())
        return said

    def surroundings(self) -> list[str]:
        """Whatever up changes, in an order of its own."""
        shown = ["-o link", "-o address", "route show table all", "-6 route show table all", "rule", "-6 rule"]
        said = "\n".join(self.namespace.run(*f"ip {what}".split()) for what in shown)
        said = said.replace("qdisc mq ", "qdisc pfifo_fast ")  # two workers have a queue each, both of that kind
        said += self.namespace.run("nft", "list", "ruleset")
        return sorted(re.sub(r"^\d+: |valid_lft \S+ preferred_lft \S+", "", line).strip() for line in said.splitlines())

    def told(self) -> list[str]:
        """How the DNS tool was called and what the hooks wrote, once."""
        said = self.tools.calls() + (self.log.read_text().splitlines() if self.log.exists() else [])
        for path in (self.tools.log, self.log):
            path.unlink(missing_ok=True)
        return said


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Namespace() as namespace:
        host = Host(namespace, tmp_path)
        assert wait_for(lambda: is_settled(namespace))
        yield host
        namespace.run(forked_wgpy(), "down", host.name, check=False)


@pytest.mark.parametrize("what", FILES)
def test_the_same_file_gives_the_same_result(host: Host, what: str) -> None:
    host.write(*FILES[what])
    before = host.surroundings()
    results = []
    for program in ("wg-quick", "wgpy"):
        host.run(program, "up")
        made = [line for line in host.surroundings() if line not in before]
        shown = host.namespace.run("wg", "showconf", host.name)
        host.run(program, "down")
        assert host.surroundings() == before, program
        barriers = [line for line in made if line.startswith("unreachable default")]  # which wg-quick does not set
        defaults = [line for line in made if line.startswith("default") and " table " in line and "1234" not in line]
        assert len(barriers) == (len(defaults) if program == "wgpy" else 0)
        made = [line for line in made if line not in barriers]
        results.append((made, re.sub(r"ListenPort = \d{5}\n", "", shown), host.told()))
    assert results[0] == results[1]
    assert any(f"dev {host.name}" in line for line in results[0][0])
    assert bool(results[0][2]) is ("DNS" in FILES[what][0])


def test_a_file_that_others_may_read_gets_a_warning(host: Host) -> None:
    host.write("", "AllowedIPs = 10.8.0.0/16")
    host.path.parent.chmod(0o755)
    for mode, warned in ((0o644, True), (0o600, False)):
        host.path.chmod(mode)
        for program in ("wg-quick", "wgpy"):
            assert ("is world accessible" in host.run(program, "up")) is warned
            host.run(program, "down")


@pytest.mark.parametrize("interface", ["PostUp = false", "PreUp = exit 3", "Table = nonesuch"])
def test_a_failed_up_is_undone(host: Host, interface: str) -> None:
    host.write(f"DNS = 10.9.0.53\n{interface}", f"AllowedIPs = 0.0.0.0/0, 10.8.0.0/16\n{ENDPOINT}")
    before = host.surroundings()
    for command in (forked_wgpy(), "wg-quick"):
        said = host.namespace.run(
            "bash",
            "-c",
            '"$@"; echo "status $?"',
            "sh",
            command,
            "up",
            str(host.path),
            env=host.environment,
            check=False,
        )
        assert "status 0" not in said
        assert wait_for(lambda: not socket_path(host.name).exists())
        if command != "wg-quick" or "PostUp" not in interface:  # wg-quick leaves its rules
            assert host.surroundings() == before


def test_save_keeps_what_wg_quick_keeps_and_what_it_loses(host: Host) -> None:
    """Both programs read the same in what either saved."""
    host.write("MTU = 1300\n# a comment", "# Name = laptop\nAllowedIPs = 10.8.0.0/16\nEndpoint = localhost:51820")
    file = host.path.read_text()
    saved = {}
    for program in ("wg-quick", "wgpy"):
        host.path.write_text(file)
        host.run(program, "up")
        host.namespace.run("wg", "set", host.name, "listen-port", "5009", "peer", B, "allowed-ips", "10.7.0.0/16")
        host.run(program, "save")
        saved[program] = host.path.read_text()
        host.run(program, "down")
    assert "ListenPort = 5009" in saved["wgpy"]
    for lost in ("# a comment", "# Name = laptop", "localhost"):
        assert (lost in saved["wgpy"], lost in saved["wg-quick"]) == (True, False)
    stripped = []
    for text in saved.values():
        host.path.write_text(text.replace("localhost", "127.0.0.1"))
        assert host.path.stat().st_mode & 0o777 == 0o600
        for program in ("wg-quick", "wgpy"):
            lines = host.run(program, "strip").splitlines()
            stripped.append(sorted({line for line in lines if line and not line.startswith("#")}))
    assert stripped[0] == stripped[1] == stripped[2] == stripped[3]
