"""`# ClampMss = on`: TCP connections of hosts behind a router agree on segments that fit into its tunnel."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.conftest import Cable
from tests.interop.conftest import cable as cable
from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import WGPY, Wgpy, WireguardGo, capture, peer_section, wait_for
from tests.support.tools import path_without
from wgpy.daemon.uapi_client import serving_pid

pytestmark = pytest.mark.root

SERVER = """
import socket
server = socket.create_server(("::", 99), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
FITTING = {"1380", "1360"}  # into 1420 bytes, beside the headers of IPv4 or IPv6 and TCP
LONG = {"1460", "1440"}


class Site:
    """The left end is a router with a host behind it; the right end, whose MTU is 1500, has a server."""

    def __init__(self, cable: Cable, extra: str, **environment: str) -> None:
        self.cable, self.run, self.name = cable, cable.left.namespace.run, cable.left.name
        self.host = cable.cleanup.enter_context(Namespace())
        addresses = (("10.88.0.1/24", "fd88::1/64"), ("10.88.0.2/24", "fd88::2/64"))
        veth_pair(cable.left.namespace, self.host, addresses, name="lan")
        self.host.run("ip", "route", "add", "default", "via", "10.88.0.1")
        self.host.run("ip", "-6", "route", "add", "default", "via", "fd88::1")
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        behind = f"{peer_section(cable.left)}, 10.88.0.0/24, fd88::/64"
        theirs = WireguardGo(cable.right, behind, mtu=1500)
        cable.cleanup.callback(theirs.close)
        for network in ("10.88.0.0/24", "fd88::/64"):
            cable.right.namespace.run("ip", "route", "add", network, "dev", cable.right.name)
        server = cable.right.namespace.popen(sys.executable, "-c", SERVER, stdout=subprocess.PIPE)
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        program = ("env", *(f"{name}={value}" for name, value in environment.items()), *WGPY)
        kind = type("Given", (Wgpy,), {"program": program})
        self.ours: Wgpy = kind(cable.left, cable.directory, peer_section(cable.right), extra=f"MTU = 1420\n{extra}")
        cable.cleanup.callback(self.run, forked_wgpy(), "down", self.name, check=False)

    def agreed(self) -> list[set[str]]:
        """The MSS that SYNs to the server have in the tunnel, and that the answers have behind the router."""
        there = self.cable.right
        syn = "(tcp[13] & 2 != 0) or (ip6[6] = 6 and ip6[53] & 2 != 0)"
        with capture(there.namespace, there.name, syn) as arriving, capture(self.host, "lan", syn) as answers:
            for address in (there.inner4, there.inner6):
                assert wait_for(lambda: self._connects(address))  # noqa: B023 (called at once)
        seen = ([line for line in arriving if "[S]" in line], [line for line in answers if "[S.]" in line])
        return [set(re.findall(r"mss (\d+)", "\n".join(lines))) for lines in seen]

    def _connects(self, address: str) -> bool:
        script = f"import socket; socket.create_connection(({address!r}, 99), 5)"
        return self.host.run(sys.executable, "-c", script, check=False) == ""

    def rules(self) -> str:
        return self.run("bash", "-c", "nft list tables; iptables-save -t mangle; ip6tables-save -t mangle")


@pytest.mark.parametrize("tool", ["nft", "iptables"])
def test_segments_fit_both_ways_until_it_is_switched_off(cable: Cable, tool: str, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    site = Site(cable, "# ClampMss = on", PATH=path_without(programs, *({"nft"} - {tool})))
    assert site.agreed() == [FITTING, FITTING]
    assert ("TCPMSS" in site.rules()) == (tool == "iptables")
    path = site.ours.path
    path.write_text(path.read_text().replace("ClampMss = on", "ClampMss = off"))
    assert f"on {site.name}" in site.ours.wgpy("apply", str(path)) or tool == "nft"
    assert site.agreed() == [LONG, LONG]
    site.ours.close()
    assert "mss" not in site.rules().lower()


def test_what_a_killed_daemon_left_is_removed(cable: Cable) -> None:
    site = Site(cable, "# ClampMss = on")
    assert f"table inet wgpy-mss-{site.name}\n" in site.rules()
    os.kill(serving_pid(site.name), signal.SIGKILL)
    assert wait_for(lambda: site.name not in site.run("ip", "-o", "link"))
    site.run(forked_wgpy(), "down", site.name)
    assert "wgpy-mss" not in site.rules()


def test_without_a_firewall_tool_up_says_what_it_needs(cable: Cable, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    path = tmp_path / f"{cable.left.name}.conf"
    path.touch(mode=0o600)
    path.write_text(f"[Interface]\nPrivateKey = {cable.left.key.base64()}\n# ClampMss = on\n")
    environment = {**os.environ, "PATH": path_without(programs, "nft", "iptables-restore")}
    said = cable.left.namespace.run(forked_wgpy(), "up", str(path), env=environment, check=False)
    assert "ClampMss needs nft or iptables: neither nft nor iptables is installed" in said
    assert cable.left.name not in cable.left.namespace.run("ip", "-o", "link")
