"""AWS's scenarios through tunnels: `wgpy gateway run` with wgpy's own interface, and stock clients of two kinds."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gateway.scenarios import PLACES, SCENARIOS, rules_of
from tests.gateway.service.clients import BEHIND, GROUPS, POOLS, PROBES, Clients
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import WGPY, capture, fresh_name, wait_for
from wgpy.cli import main
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.store import rules
from wgpy.gateway.store.database import Database

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("tunnels")]


class World(Clients):
    """A gateway with its database, clients by group, and servers behind it."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.host, self.servers, *spaces = (stack.enter_context(Namespace()) for _ in range(2 + len(GROUPS)))
        self.clients = dict(zip(GROUPS, spaces, strict=True))
        self.addresses: dict[str, tuple[str, str]] = {}
        self.places = ["--directory", str(directory / "gateway"), "--key", str(directory / "gateway.key")]
        unlimited = ("net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_msgs_per_sec=100000", "net.ipv4.icmp_msgs_burst=10000")
        self.host.run("sysctl", "-qw", *unlimited, "net.ipv6.icmp.ratelimit=0")
        self._lay_cables()
        pools = " ".join(f"--pool {pool}" for pool in POOLS)
        self.gateway(f"init --interface {fresh_name()} --host 192.0.2.1 {pools} --data-plane wgpy --flow-log")
        self.flows = directory / "flows.jsonl"
        self.database = Database(directory / "gateway" / "gateway.db", directory / "gateway.key")
        stack.callback(self.database.close)
        for network in BEHIND:
            self.gateway(f"route add {network}")
        for group in (*GROUPS, "admin"):
            self.gateway(f"group add {group}")
        for group in GROUPS:
            self.gateway(f"user add {group} --group {group}")
            path = directory / f"{fresh_name()}.conf"
            self.gateway(f"device add {group} --user {group} --output {path}")
            self.connect(group, path, stack)
        log = stack.enter_context((directory / "log").open("w"))
        command = ("gateway", "run", "--flow-log", str(self.flows), *self.places)
        self.host.popen(*WGPY, *command, stdout=log, stderr=log)

    def gateway(self, words: str) -> None:
        assert main(["gateway", *words.split(), *self.places]) == 0

    def allow(self, wanted: Iterable[Rule]) -> None:
        """Replace the rules."""
        with self.database.change("root") as change:
            for rule in rules.find_all(change.connection):
                rules.remove(change, rule.name)
            for rule in wanted:
                rules.add(change, rule)

    def _lay_cables(self) -> None:
        self.host.run("ip", "address", "add", "192.0.2.1", "dev", "lo")
        for number, client in enumerate(self.clients.values()):
            here, there = f"203.0.113.{4 * number + 1}", f"203.0.113.{4 * number + 2}"
            veth_pair(self.host, client, ([f"{here}/30"], [f"{there}/30"]), name=f"client{number}")
            client.run("ip", "route", "add", "192.0.2.1", "via", here)
        veth_pair(self.host, self.servers, (["10.77.0.1/24", "fd77::1/64"], ["10.77.0.2/24", "fd77::2/64"]), name="lan")
        for address in (address for both in PLACES.values() for address in both):
            self.servers.run("ip", "address", "add", address, "dev", "lo")
        for network in BEHIND:
            self.host.run("ip", "route", "add", network, "via", "fd77::2" if ":" in network else "10.77.0.2")
        for namespace in (self.servers, *self.clients.values()):
            server = namespace.popen(*PROBES, "serve", "443", stdout=subprocess.PIPE)
            assert server.stdout
            assert server.stdout.readline() == "ready\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack, tmp_path_factory.mktemp("gateway"))


@pytest.mark.parametrize("scenario", ["any destination", "access for all groups", "no rules"])
def test_each_client_reaches_what_aws_says_and_nothing_else(scenario: str, world: World) -> None:
    given, expected = SCENARIOS[scenario]
    world.allow([*rules_of(given, 4), *(replace(rule, name=f"{rule.name}-6") for rule in rules_of(given, 6))])
    wanted = {group: expected.get(group, set()) for group in GROUPS}
    found: dict[str, set[str]] = {}

    def is_so() -> bool:
        found.update({group: world.reached(group) for group in GROUPS})
        return found == wanted

    wait_for(is_so, 60)  # until the rules are in force, and with the first ones the sessions
    assert found == wanted


def test_a_client_reaches_another_by_a_rule_for_the_pool_in_one_direction(world: World) -> None:
    pool = [Destination.parse(text) for text in POOLS]
    world.allow(Rule(name=f"pool{n}", destination=each, groups=frozenset({"manager"})) for n, each in enumerate(pool))
    world.assert_connected_one_way("manager", "development", "engineering")


def test_servers_send_segments_that_fit_into_the_tunnel(world: World) -> None:
    """Their own network takes 1460 bytes of TCP, and somebody may filter the ICMP that would tell them."""
    place = PLACES["development"]
    wanted = (Destination.parse(text) for text in ("10.0.0.0/8", "2001:db8::/32"))
    world.allow(Rule(name=f"to{n}", destination=each, groups=frozenset({"manager"})) for n, each in enumerate(wanted))
    probes = [(address, "tcp", 443) for address in place]
    assert wait_for(lambda: all(world.answers("manager", probes)), 30)
    with capture(world.clients["manager"], "any", "tcp[13] & 2 != 0 or (ip6[6] = 6 and ip6[53] & 2 != 0)") as seen:
        world.answers("manager", probes)
    assert {re.findall(r"mss (\d+)", line)[0] for line in seen if "[S.]" in line} == {"1380", "1360"}, seen


def test_the_flow_log_has_what_passed_and_what_was_denied(world: World) -> None:
    world.host.run("sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=1")
    place = PLACES["development"][0]
    world.allow([Rule(name="all", destination=Destination.parse("10.0.0.0/8:443/udp"), groups=frozenset({"manager"}))])
    assert wait_for(lambda: bool(world.answers("manager", [(place, "udp", 443)])[0]), 30)
    seen: set[tuple[str, ...]] = set()

    def has_both() -> bool:
        world.answers("engineering", [(place, "udp", 443)])  # the first begins a session, if there is none
        world.host.run("cat", "/proc/net/nf_conntrack")  # which makes the kernel forget what is over
        records = [json.loads(line) for line in world.flows.read_text().splitlines()]
        seen.update(
            (each["action"], each["user"], each["flow-direction"]) for each in records if each["protocol"] == 17
        )
        return seen >= {
            ("ACCEPT", "manager", "ingress"),
            ("ACCEPT", "manager", "egress"),
            ("REJECT", "engineering", "ingress"),
        }

    assert wait_for(has_both, 20), seen
    assert world.flows.stat().st_mode & 0o777 == 0o600
