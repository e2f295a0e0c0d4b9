"""What passes the kernel: clients on an interface, servers behind the gateway, and packets of each protocol."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

import pytest

from tests.gateway.enforcement.probes import Probe, answered
from tests.gateway.scenarios import PLACES, SCENARIOS, rules_of
from tests.support.netns import Namespace, in_fresh_namespace
from wgpy.errors import NetworkError
from wgpy.gateway.enforcement.dataplane import DataPlane
from wgpy.gateway.enforcement.nft import Firewall
from wgpy.gateway.enforcement.notices import UNKNOWN, Changes, Notices
from wgpy.gateway.policy.compiler import compiled
from wgpy.gateway.policy.destinations import Address, Destination
from wgpy.gateway.policy.routes import Route
from wgpy.gateway.policy.rules import Rule
from wgpy.labs.traffic import wait_for

pytestmark = pytest.mark.root
POOLS = [ip_network("10.99.0.0/24"), ip_network("fd00:99::/64")]
CLIENTS = {n: (f"10.99.0.{n}", f"fd00:99::{n}") for n in range(2, 7)}
OTHER = ("10.99.0.9", "fd00:99::9")  # a client that is in another namespace
SERVER = ("10.0.2.119", "2001:db8:a:2::119")


PORTS = (443, 8080)
GROUP = 51820


class Clients:
    """A namespace whose processes send from clients' addresses."""

    def __init__(self, namespace: Namespace, *addresses: str) -> None:
        connect("wg0", namespace, addresses, ("10.99.0.1", "fd00:99::1"))
        self.namespace = namespace
        self._asking = namespace.popen(*PROBES, "ask", stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def answers(self, *probes: Probe) -> list[str]:
        """Send packets; returns what each is answered, or empty strings."""
        answers: list[str] = self._ask(probes)
        return answers

    def connect(self, **probes: Probe) -> None:
        """Make connections that have names, for `goes_on`."""
        self._ask(probes)

    def goes_on(self, name: str) -> bool:
        """Whether a connection that was made still gets answers."""
        alive: bool = self._ask(name)
        return alive

    def reaches(
        self, client: int, port: int = 443, protocol: str = "tcp", *, to: tuple[str, str] = SERVER
    ) -> list[bool]:
        """Whether a client gets answers in IPv4 and in IPv6."""
        pairs = zip(CLIENTS[client], to, strict=True)
        return [bool(answer) for answer in self.answers(*(Probe(*pair, protocol, port) for pair in pairs))]

    def _ask(self, question: object) -> Any:
        assert self._asking.stdin
        assert self._asking.stdout
        self._asking.stdin.write(json.dumps(question) + "\n")
        self._asking.stdin.flush()
        return json.loads(self._asking.stdout.readline())


class World:
    """This namespace is the gateway; behind `wg0` are clients with their addresses, behind `lan` are servers.

    A bridge takes the tunnel's place. Link-layer addresses are set, because nobody asks for them in a tunnel.
    """

    def __init__(self, clients: Namespace, servers: Namespace) -> None:
        unlimited = ("net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_msgs_per_sec=100000", "net.ipv4.icmp_msgs_burst=10000")
        shell("sysctl", "-qw", *unlimited, "net.ipv6.icmp.ratelimit=0")
        shell("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for n, bridge in enumerate(("wg0", "lan")):  # a given address does not follow those of its cables
            shell("ip", "link", "add", bridge, "address", f"02:00:00:00:00:0{n}", "up", "type", "bridge")
        connect("lan", servers, [address for both in PLACES.values() for address in both], ("10.77.0.1", "fd77::1"))
        serve(servers)
        self.servers = servers
        self.log_denied = False
        self.clients = Clients(clients, *(address for both in CLIENTS.values() for address in both))
        self.firewall = Firewall("wg0", GROUP)
        self.notices = Notices(GROUP)
        self.allow([], {})

    def allow(self, rules: Iterable[Rule], groups: Mapping[int, set[str]], routes: Iterable[Route] = ()) -> None:
        """Put rules in force; client n is in groups[n]."""
        clients = {**CLIENTS, 9: OTHER}
        members: dict[Address, set[str]] = {
            ip_address(address): of for n, of in groups.items() for address in clients[n]
        }
        self.firewall.replace(POOLS, compiled(list(rules), members), routes, log_denied=self.log_denied)

    def open(self, *addresses: tuple[str, str], seconds: float = 3600) -> None:
        self.firewall.admit({ip_address(address): seconds for both in addresses for address in both})

    def close(self, *addresses: tuple[str, str]) -> None:
        self.firewall.admit({}, [ip_address(address) for both in addresses for address in both])


NODAD = " nodad"
PROBES = (sys.executable, "-m", "tests.gateway.enforcement.probes")
BOTH, NEITHER = [True, True], [False, False]


def shell(*command: str) -> None:
    subprocess.run(command, check=True)


def serve(namespace: Namespace) -> None:
    """Answer on PORTS in a namespace."""
    process = namespace.popen(*PROBES, "serve", *map(str, PORTS), stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"


def connect(bridge: str, other: Namespace, addresses: Sequence[str], own: tuple[str, str]) -> None:
    """Join a bridge here to another namespace, which has the addresses and uses us as its gateway."""
    cable = ("link", "add", f"to-{other.name[-9:]}", "master", bridge, "up", "type", "veth")
    shell("ip", *cable, "peer", "name", "far", "netns", other.name)
    mac, far = (json.loads(text)[0]["address"] for text in (
        subprocess.check_output(["ip", "-json", "link", "show", bridge], text=True),
        other.run("ip", "-json", "link", "show", "far"),
    ))  # fmt: skip
    here, there = [], ["link set far up"]
    for address in own:
        here.append(f"address replace {address} dev {bridge}" + NODAD * (":" in address))
        there += [f"route add {address} dev far", f"neighbour add {address} lladdr {mac} dev far"]
    for address in addresses:
        there.append(f"address add {address} dev far" + NODAD * (":" in address))
        here += [f"route add {address} dev {bridge}", f"neighbour add {address} lladdr {far} dev {bridge}"]
    there += [f"route add 0.0.0.0/0 via {own[0]} dev far onlink", f"route add ::/0 via {own[1]} dev far onlink"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(here), text=True, check=True)
    other.run("ip", "-batch", "-", input="\n".join(there))


def in_world(test: Callable[[World], None]) -> Callable[[], None]:
    """Decorate a test that gets a World."""

    def body() -> None:
        with Namespace() as clients, Namespace() as servers:
            test(World(clients, servers))

    body.__name__ = test.__name__
    return in_fresh_namespace(body)


STAFF = [
    Rule(name="staff4", destination=Destination.parse("10.0.0.0/16"), groups=frozenset({"staff"})),
    Rule(name="staff6", destination=Destination.parse("2001:db8:a::/48"), groups=frozenset({"staff"})),
]


@in_world
def test_access_in_the_scenarios_of_aws(world: World) -> None:
    names = list(dict.fromkeys(group for _, expected in SCENARIOS.values() for group in expected))
    numbers = {group: 2 + place % len(CLIENTS) for place, group in enumerate(names)}
    wrong = []
    world.open(*CLIENTS.values())
    for scenario, (given, expected) in SCENARIOS.items():
        world.allow([*rules_of(given, 4), *rules_of(given, 6)], {numbers[group]: {group} for group in expected})
        cases = [
            (group, place, Probe(CLIENTS[numbers[group]][version], PLACES[place][version], protocol))
            for group, place, version, protocol in product(expected, PLACES, (0, 1), ("tcp", "udp", "icmp"))
        ]
        answers = world.clients.answers(*(probe for _, _, probe in cases))
        for (group, place, probe), answer in zip(cases, answers, strict=True):
            if bool(answer) != (place in expected[group]):
                wrong.append((scenario, group, place, probe, answer))
    assert not wrong


@in_world
def test_nothing_passes_before_a_session_or_after_its_end(world: World) -> None:
    world.allow(STAFF, {2: {"staff"}, 3: {"staff"}})
    assert world.clients.reaches(2, protocol="udp") == NEITHER
    assert world.notices.read().clients == set(map(ip_address, CLIENTS[2]))
    world.open(CLIENTS[2])
    assert world.clients.reaches(2) == BOTH
    assert world.clients.reaches(3, protocol="udp") == NEITHER
    world.close(CLIENTS[2])
    assert world.clients.reaches(2, protocol="udp") == NEITHER
    assert world.firewall.dropped()["no_session"] >= 4
    assert world.notices.read().clients >= set(map(ip_address, CLIENTS[3]))


@in_world
def test_the_kernel_ends_a_session_by_itself(world: World) -> None:
    world.allow(STAFF, {2: {"staff"}})
    world.open(CLIENTS[2], seconds=3600)
    world.open(CLIENTS[2], seconds=3)  # shortened
    assert world.clients.reaches(2) == BOTH
    assert wait_for(lambda: not world.firewall.sent())
    assert world.clients.reaches(2, protocol="udp") == NEITHER


@in_world
def test_a_connection_ends_with_its_session_or_its_rule_and_goes_on_when_others_change(world: World) -> None:
    world.allow(STAFF, {2: {"staff"}, 3: {"staff"}})
    world.open(CLIENTS[2], CLIENTS[3])
    probes = [Probe(CLIENTS[client][version], SERVER[version]) for client, version in product((2, 3), (0, 1))]
    world.clients.connect(**dict(zip("abcd", probes, strict=True)))
    assert all(map(world.clients.goes_on, "abcd"))
    world.close(CLIENTS[3])
    assert not any(map(world.clients.goes_on, "cd"))
    world.allow([*STAFF, *rules_of(SCENARIOS["any destination"][0], 6)], {2: {"staff"}})
    assert all(map(world.clients.goes_on, "ab"))
    world.allow(STAFF[:1], {2: {"staff"}})
    assert [*map(world.clients.goes_on, "ab")] == [True, False]


@in_world
def test_counters_say_what_a_session_sent_and_received(world: World) -> None:
    world.allow(STAFF, {2: {"staff"}})
    world.open(CLIENTS[2])
    address = ip_address(CLIENTS[2][0])
    assert world.clients.reaches(2, protocol="udp") == BOTH
    assert world.firewall.sent()[address][:2] == (1, 20 + 8 + 1)
    assert world.firewall.received()[address][:2] == (1, 20 + 8 + len(CLIENTS[2][0]))
    world.allow([], {2: {"staff"}})  # another policy does not reset them
    assert world.firewall.sent()[address].packets == 1


@in_world
def test_rules_apply_to_their_ports_and_protocols(world: World) -> None:
    web = Rule(name="web", destination=Destination.parse("10.0.0.0/16:440-443/tcp"), everyone=True)
    both = Rule(name="both", destination=Destination.parse("[2001:db8:a::/48]:8080"), everyone=True)
    world.allow([web, both], {2: set()})
    world.open(CLIENTS[2])
    cases = list(product(("tcp", "udp"), PORTS))
    assert {case: world.clients.reaches(2, case[1], case[0]) for case in cases} == {
        ("tcp", 443): [True, False],
        ("tcp", 8080): [False, True],
        ("udp", 443): NEITHER,
        ("udp", 8080): [False, True],
    }
    assert world.clients.reaches(2, protocol="icmp") == NEITHER
    prefixes = ("10.0.0.0/16/icmp", "[2001:db8:a::/48]/icmp")
    world.allow(
        [Rule(name="echo", destination=Destination.parse(text), everyone=True) for text in prefixes], {2: set()}
    )
    assert world.clients.reaches(2, protocol="icmp") == BOTH
    assert world.clients.reaches(2) == NEITHER


@in_world
def test_clients_reach_one_another_by_a_rule_for_their_pool_and_only_while_both_have_a_session(world: World) -> None:
    with Namespace() as namespace:
        Clients(namespace, *OTHER)
        serve(namespace)
        world.open(CLIENTS[2], OTHER)
        groups: dict[int, set[str]] = {2: {"staff"}, 9: {"ops"}}
        world.allow(STAFF, groups)
        assert world.clients.reaches(2, to=OTHER) == NEITHER
        pool = [
            Rule(name=f"pool{pool.version}", destination=Destination(pool), groups=frozenset({"staff"}))
            for pool in POOLS
        ]
        world.allow(pool, groups)
        assert world.clients.reaches(2, to=OTHER) == BOTH
        world.close(OTHER)
        assert world.clients.reaches(2, to=OTHER, protocol="udp") == NEITHER


@in_world
def test_only_a_client_can_send_from_or_receive_at_its_address(world: World) -> None:
    everything = [
        Rule(name="all", destination=Destination.parse(text), everyone=True) for text in ("0.0.0.0/0", "::/0")
    ]
    world.allow(everything, {2: set(), 3: set()})
    world.open(CLIENTS[2], CLIENTS[3])
    serve(world.clients.namespace)
    for address in CLIENTS[3]:
        world.servers.run("ip", "address", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
    sources, targets = (*SERVER, *CLIENTS[3]), (*CLIENTS[2], *CLIENTS[2])
    question = json.dumps([Probe(*pair, "udp") for pair in zip(sources, targets, strict=True)])
    assert world.servers.run(*PROBES, "ask", input=question).strip() == '["", "", "", ""]'
    dropped = world.firewall.dropped()
    assert (dropped["denied"], dropped["spoofed"]) == (2, 2)


@in_world
def test_the_gateway_itself_is_a_destination_like_any_other(world: World) -> None:
    own = ("10.99.0.1", "fd00:99::1")
    process = subprocess.Popen([*PROBES, "serve", "443"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        process.stdout.readline()
        world.open(CLIENTS[2])
        world.allow(STAFF, {2: {"staff"}})
        assert world.clients.reaches(2, to=own) == NEITHER
        world.allow([Rule(name="own", destination=Destination.parse(own[0]), everyone=True)], {2: set()})
        assert world.clients.reaches(2, to=own) == [True, False]
    finally:
        process.kill()
        process.communicate()


@in_world
def test_what_the_gateway_itself_sends_needs_a_session_and_what_is_denied_does_not_count(world: World) -> None:
    world.allow(STAFF, {2: {"staff"}})
    own, client = "10.99.0.1", CLIENTS[2][0]
    serve(world.clients.namespace)
    assert not answered(Probe(own, client, "udp"))
    world.open(CLIENTS[2])
    assert answered(Probe(own, client, "udp"))
    before = world.firewall.received()[ip_address(client)].packets
    assert before == 1
    question = json.dumps([Probe(SERVER[0], client, "udp")])
    assert world.servers.run(*PROBES, "ask", input=question).strip() == '[""]'
    assert world.firewall.received()[ip_address(client)].packets == before


@in_world
def test_servers_see_the_address_that_their_route_says(world: World) -> None:
    prefixes = ("0.0.0.0/0", "::/0")
    routes = [
        Route(network=ip_network("0.0.0.0/0")),
        Route(network=ip_network("10.0.0.0/16"), snat="none"),
        Route(network=ip_network("10.0.2.119/32"), snat="10.77.0.9"),
        Route(network=ip_network("2001:db8::/32"), snat="fd77::1"),
    ]
    shell("ip", "address", "add", "10.77.0.9", "dev", "lan")
    world.servers.run("ip", "route", "add", "10.77.0.9", "via", "10.77.0.1", "dev", "far", "onlink")
    world.allow(
        [Rule(name="all", destination=Destination.parse(text), everyone=True) for text in prefixes], {2: set()}, routes
    )
    world.open(CLIENTS[2])
    client, client6 = CLIENTS[2]
    assert world.clients.answers(
        Probe(client, PLACES["internet"][0]),
        Probe(client, PLACES["development"][0]),
        Probe(client, SERVER[0], "udp"),
        Probe(client6, SERVER[1]),
    ) == ["10.77.0.1", client, "10.77.0.9", "fd77::1"]


@in_fresh_namespace
def test_a_change_of_nftables_is_noticed_whoever_makes_it() -> None:
    firewall, changes = Firewall("wg0", GROUP), Changes("wgpy-gateway-wg0")
    firewall.replace(POOLS, compiled([], {}), [])
    firewall.admit({ip_address(CLIENTS[2][0]): 99})
    assert changes.read()
    shell("nft", "add", "table", "inet", "another")
    assert not changes.read()
    name = ("inet", "wgpy-gateway-wg0")
    for command in (
        ("flush", "ruleset"),
        ("flush", "table", *name),
        ("flush", "chain", *name, "judge"),
        ("flush", "set", *name, "pools4"),
        ("delete", "element", *name, "pools4", "{ 10.99.0.0/24 }"),
        ("insert", "rule", *name, "judge", "accept"),
        ("add", "element", *name, "from4", "{ 10.99.0.7 }"),
        ("add", "table", *name, "{ flags dormant; }"),
        ("add", "chain", *name, "forward", "{ policy drop; }"),
    ):
        assert firewall.exists()
        shell("nft", *command)
        assert select.select([changes], [], [], 5)[0]
        assert firewall.changed_by(changes.read())
        assert not firewall.exists(), command
        assert firewall.replace(POOLS, compiled([], {}), []), "it was made anew"
        assert not firewall.sent()
        assert not firewall.changed_by(changes.read()), "what we do ourselves"
    changes.close()


@in_fresh_namespace
def test_more_notices_than_fit_into_the_socket_are_no_reason_to_make_the_table_again() -> None:
    firewall, changes = Firewall("wg0", GROUP), Changes("wgpy-gateway-wg0")
    firewall.replace(POOLS, compiled([], {}), [])
    assert firewall.changed_by({UNKNOWN})
    assert firewall.exists()
    name = ("inet", "wgpy-gateway-wg0")
    for command in (
        ("flush", "chain", *name, "judge"),
        ("add", "table", *name, "{ flags dormant; }"),
        ("add", "chain", *name, "forward", "{ policy drop; }"),
    ):
        shell("nft", *command)
        assert not firewall.exists()
        firewall.replace(POOLS, compiled([], {}), [])
        assert firewall.exists()
    changes.close()


@in_fresh_namespace
def test_a_table_that_the_last_process_left_is_taken_over_and_is_in_force_though_somebody_made_it_dormant() -> None:
    address = ip_address(CLIENTS[2][0])
    last = Firewall("wg0", GROUP)
    last.replace(POOLS, compiled([], {}), [])
    last.admit({address: 99})
    following = Firewall("wg0", GROUP)
    following.replace(POOLS, compiled([], {}), [])
    assert {*following.sent()} == {address}
    shell("nft", "add", "table", "inet", "wgpy-gateway-wg0", "{ flags dormant; }")
    assert "dormant" in subprocess.check_output(["nft", "list", "ruleset"], text=True)
    Firewall("wg0", GROUP).replace(POOLS, compiled([], {}), [])
    assert "dormant" not in subprocess.check_output(["nft", "list", "ruleset"], text=True)


@in_world
def test_no_client_is_let_into_a_network_while_the_table_is_missing_or_its_chains_are_empty(world: World) -> None:
    plane = DataPlane()
    plane.guard("wg0")
    plane.guard("wg0")
    everything = [
        Rule(name="all", destination=Destination.parse(text), everyone=True) for text in ("0.0.0.0/0", "::/0")
    ]
    world.allow(everything, {2: set()})
    world.open(CLIENTS[2])
    assert world.clients.reaches(2) == BOTH
    for command in ("flush", "delete"):
        shell("nft", command, "table", "inet", "wgpy-gateway-wg0")
        assert world.clients.reaches(2, protocol="udp") == NEITHER
        world.allow(everything, {2: set()})
        world.open(CLIENTS[2])
        assert world.clients.reaches(2, protocol="udp") == BOTH
    plane.down("wg0")
    world.firewall.remove()
    assert world.clients.reaches(2) == BOTH  # they are no gateway's any more


@in_fresh_namespace
def test_an_old_copy_of_the_table_is_not_the_table() -> None:
    firewall = Firewall("wg0", GROUP)
    firewall.replace(POOLS, compiled([], {}), [])
    firewall.admit({ip_address(CLIENTS[2][0]): 99})
    saved = subprocess.check_output(["nft", "list", "ruleset"], text=True)
    firewall.replace(POOLS, compiled([], {}), [])
    assert firewall.exists()
    subprocess.run(["nft", "-f", "-"], input=f"flush ruleset\n{saved}", text=True, check=True)
    assert not firewall.exists()
    firewall.replace(POOLS, compiled(STAFF, {ip_address(CLIENTS[2][0]): {"staff"}}), [])
    assert firewall.exists()
    assert not firewall.sent()


@in_fresh_namespace
def test_one_gateway_gets_the_notices_of_a_group() -> None:
    first = Notices(GROUP)
    with pytest.raises(NetworkError, match="another gateway on this port"):
        Notices(GROUP)
    first.close()


@in_fresh_namespace
def test_a_policy_that_nft_refuses_changes_nothing_and_is_reported() -> None:
    firewall = Firewall("wg0", GROUP)
    firewall.replace(POOLS, compiled(STAFF, {ip_address(CLIENTS[2][0]): {"staff"}}), [])
    before = subprocess.check_output(["nft", "list", "ruleset"])
    with pytest.raises(NetworkError, match="nft: "):
        firewall.replace([*POOLS, ip_network("10.99.0.0/25")], compiled([], {}), [])
    assert subprocess.check_output(["nft", "list", "ruleset"]) == before
    firewall.remove()
    firewall.remove()
    assert subprocess.check_output(["nft", "list", "ruleset"]) == b""


def test_a_missing_nft_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NetworkError, match="nft is not installed: on Debian, apt-get install nftables"):
        Firewall("wg0", GROUP)
