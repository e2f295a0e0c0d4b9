"""The gateway on the kernel's WireGuard: here where the kernel has it, else in the virtual machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from tests.gateway.scenarios import PLACES, SCENARIOS, rules_of
from tests.gateway.service.clients import BEHIND, GATEWAY, GROUPS, POOLS, PROBES, Clients
from tests.support.guest_gateway import places
from tests.support.guest_python import python_in
from tests.support.kernel_peer import CARD, Guest
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import fresh_name, wait_for
from wgpy.cli import main
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule

pytestmark = [pytest.mark.root, pytest.mark.timeout(900), pytest.mark.xdist_group("kernel")]
MANAGER = frozenset({"manager"})
IN_NAMES = str.maketrans("/:", "__")
CONTROL = 7000
ROUTER = ("10.77.0.2", "fd77::2")


TALK = f"""
import socket, sys, time
for _ in range(600):
    try:
        connection = socket.create_connection(({GATEWAY[0]!r}, {CONTROL}), 1)
        break
    except OSError:
        time.sleep(0.5)
connection.settimeout(None)
stream = connection.makefile("rw")
print("ready", flush=True)
for line in sys.stdin:
    stream.write(line)
    stream.flush()
    print(stream.readline() or exit(), end="", flush=True)
"""


class World(Clients):
    """A router, to which the gateway, its clients and the servers are connected."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.router, self.servers, *spaces = (stack.enter_context(Namespace()) for _ in range(2 + len(GROUPS)))
        self.clients = dict(zip(GROUPS, spaces, strict=True))
        self.addresses: dict[str, tuple[str, str]] = {}
        self.rules: dict[str, Rule] = {}
        self.directory = directory
        self.gateway_dir = directory / "gateway"
        self.guest = cast(Namespace, stack.enter_context(Guest(self.router)))
        self._lay_cables()
        self._make_gateway(stack)
        self._start(stack)

    def _lay_cables(self) -> None:
        self.router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for own, far, name, run in (
            (GATEWAY, ROUTER, "guest", self.guest.run),
            (ROUTER, GATEWAY, "router", self.router.run),
        ):
            run("ip", "link", "set", CARD, "up")
            run("ip", "address", "add", f"{own[0]}/24", "dev", CARD)
            run("ip", "address", "add", f"{own[1]}/64", "dev", CARD, "nodad")
            if name == "guest":
                run("ip", "route", "add", "default", "via", far[0])
                run("ip", "-6", "route", "add", "default", "via", far[1])
        veth_pair(
            self.router, self.servers, (["10.78.0.1/24", "fd78::1/64"], ["10.78.0.2/24", "fd78::2/64"]), name="lan"
        )
        for address in (address for both in PLACES.values() for address in both):
            self.servers.run("ip", "address", "add", address, "dev", "lo")
        for network in BEHIND:
            self.router.run("ip", "route", "add", network, "via", "fd78::2" if ":" in network else "10.78.0.2")
        self.servers.run("ip", "route", "add", "default", "via", "10.78.0.1")
        self.servers.run("ip", "-6", "route", "add", "default", "via", "fd78::1")
        for number, client in enumerate(self.clients.values()):
            here, there = f"203.0.113.{4 * number + 1}", f"203.0.113.{4 * number + 2}"
            veth_pair(self.router, client, ([f"{here}/30"], [f"{there}/30"]), name=f"client{number}")
            client.run("ip", "route", "add", GATEWAY[0], "via", here)
        for namespace in (self.servers, *self.clients.values()):
            server = namespace.popen(*PROBES, "serve", "443", stdout=subprocess.PIPE)
            assert server.stdout
            assert server.stdout.readline() == "ready\n"

    def _make_gateway(self, stack: ExitStack) -> None:
        def gateway(words: str) -> None:
            assert main(["gateway", *words.split(), *places(self.gateway_dir)]) == 0

        pools = " ".join(f"--pool {pool}" for pool in POOLS)
        gateway(f"init --interface wg0 --host {GATEWAY[0]} {pools} --data-plane kernel")
        for network in BEHIND:
            gateway(f"route add {network}")
        for group in (*GROUPS, "admin"):
            gateway(f"group add {group}")
        for group in GROUPS:
            gateway(f"user add {group} --group {group}")
            path = self.directory / f"{fresh_name()}.conf"
            gateway(f"device add {group} --user {group} --output {path}")
            self.connect(group, path, stack)

    def _start(self, stack: ExitStack) -> None:
        module, there = "tests.support.guest_gateway", self.guest
        files = (self.gateway_dir / "gateway.db", self.gateway_dir / "key")
        command = python_in(there, self.router, ROUTER[0], self.directory, module, *files)
        script = f"{' '.join(command)} {self.gateway_dir} {CONTROL} >/tmp/log 2>&1 </dev/null &"
        there.run("sh", "-c", script)

        self._control = self.router.popen(
            sys.executable, "-c", TALK, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._control.stdout
        assert self._control.stdout.readline() == "ready\n", there.run("cat", "/tmp/log")

    def gateway(self, *words: str) -> None:
        """Run a command of the gateway where it is."""
        assert self._control.stdin
        assert self._control.stdout
        self._control.stdin.write(json.dumps(words) + "\n")
        self._control.stdin.flush()
        assert self._control.stdout.readline() == "0\n", self.guest.run("cat", "/tmp/log")

    def allow(self, wanted: dict[str, Rule]) -> None:
        """Change the rules to these, of which some may be in force: a command takes long in the machine."""
        for name in self.rules.keys() - wanted.keys():
            self.gateway("rule", "remove", name)
        for name in sorted(wanted.keys() - self.rules.keys()):
            who = [word for group in sorted(wanted[name].groups) for word in ("--group", group)] or ["--everyone"]
            self.gateway("rule", "add", name, str(wanted[name].destination), *who)
        self.rules = wanted


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack, tmp_path_factory.mktemp("gateway"))


@pytest.mark.parametrize("scenario", [name for name, (_, expected) in SCENARIOS.items() if "manager" in expected])
def test_each_client_reaches_what_aws_says_and_nothing_else(scenario: str, world: World) -> None:
    given, expected = SCENARIOS[scenario]
    wanted = {group: expected.get(group, set()) for group in GROUPS}
    world.allow(
        {
            f"{group or 'everyone'}-{rule.destination}".translate(IN_NAMES): rule
            for version in (4, 6)
            for (group, _), rule in zip(given, rules_of(given, version), strict=True)
        }
    )
    found: dict[str, set[str]] = {}

    def is_so() -> bool:
        found.update({group: world.reached(group) for group in GROUPS})
        return found == wanted

    wait_for(is_so, 90)
    assert found == wanted, world.guest.run("cat", "/tmp/log")
    shown = world.guest.run("wg", "show", "wg0", "allowed-ips")
    assert all(address in shown for both in world.addresses.values() for address in both)


def test_a_client_reaches_another_by_a_rule_for_the_pool_in_one_direction(world: World) -> None:
    rules = (Rule(name=f"pool{n}", destination=Destination.parse(p), groups=MANAGER) for n, p in enumerate(POOLS))
    world.allow(world.rules | {rule.name: rule for rule in rules})  # whose prefixes are longer than the others'
    world.assert_connected_one_way("manager", "development", "engineering")


def test_who_is_disabled_is_cut_off_and_the_rest_goes_on(world: World) -> None:
    place = [(PLACES["internet"][0], "udp", 443)]
    assert wait_for(lambda: world.answers("manager", place) != [""], 60)
    world.gateway("user", "disable", "manager")
    assert wait_for(lambda: world.answers("manager", place) == [""], 30)
    inner = world.addresses["manager"][0]
    assert wait_for(lambda: inner not in world.guest.run("wg", "show", "wg0", "allowed-ips"), 30)
    world.gateway("user", "enable", "manager")
    assert wait_for(lambda: world.answers("manager", place) != [""], 90)
