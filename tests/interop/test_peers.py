"""The program under test against others: wgpy by its wg-quick files, or another by the stock `wg`.

What judges wgpy alone is not marked as a scenario. wgpy against itself is tested elsewhere.
"""

from __future__ import annotations

import re
import time
from functools import partial

import pytest

from tests.interop.conftest import Cable
from tests.support.forked import forked_wgpy
from tests.support.netns import is_settled
from tests.support.peers import Side, StockTools, Wgpy, iperf3, peer_section, wait_for
from wgpy.keys import PresharedKey

pytestmark = [pytest.mark.root, pytest.mark.without_wgpy]


@pytest.fixture
def cable(cable_to_program: Cable) -> Cable:
    return cable_to_program


def bring_up(cable: Cable, *, psk: PresharedKey | None = None) -> tuple[Wgpy | StockTools, Wgpy | StockTools]:
    """The program under test left, the other right; each knows where the other is."""
    theirs = cable.open(cable.right, peer_section(cable.left, psk=psk))
    return cable.open(cable.left, peer_section(cable.right, psk=psk)), theirs


def bring_up_wgpy(
    cable: Cable, *, psk: PresharedKey | None = None, options: tuple[str, ...] = ()
) -> tuple[Wgpy, StockTools | Wgpy]:
    """The same for what only wgpy has."""
    theirs = cable.open(cable.right, peer_section(cable.left, psk=psk))
    ours = Wgpy(cable.left, cable.directory, peer_section(cable.right, psk=psk), options=options)
    cable.cleanup.callback(ours.close)
    return ours, theirs


def shown(side: Side, what: str) -> list[str]:
    """What `wg show NAME WHAT` says of the only peer."""
    return side.namespace.run("wg", "show", side.name, what).split()[1:]


def ping_both_ways(cable: Cable, *options: str) -> None:
    for here, there in ((cable.left, cable.right), (cable.right, cable.left)):
        for address in (there.inner4, there.inner6):
            here.namespace.run("ping", "-c", "3", "-i", "0.1", "-W", "5", *options, address)


@pytest.mark.scenario("paper, 5.4: messages", "paper, 5.2: the preshared key")
@pytest.mark.parametrize("outer", ["IPv4", "IPv6"])
@pytest.mark.parametrize("preshared", [False, True])
def test_ping_both_ways(cable: Cable, outer: str, preshared: bool) -> None:
    """Small packets, packets as large as the tunnel's MTU, and fragments pass both ways.

    So they do with and without a preshared key, and IPv4 and IPv6 over either.
    """
    if outer == "IPv6":
        cable.over_ipv6()
    bring_up(cable, psk=PresharedKey.generate() if preshared else None)
    ping_both_ways(cable)
    ping_both_ways(cable, "-s", "1392")  # 1420 bytes: what the tunnel's MTU holds
    ping_both_ways(cable, "-s", "4000")  # fragments inside
    assert shown(cable.left, "endpoints") == [cable.right.endpoint]
    assert (shown(cable.left, "preshared-keys") != ["(none)"]) is preshared


@pytest.mark.scenario("wg(8): transfer")
def test_the_counters_of_both_ends_agree(cable: Cable) -> None:
    """After pings of several sizes both ways, one end has received what the other has sent, to the byte."""
    bring_up(cable)
    ping_both_ways(cable)
    ping_both_ways(cable, "-s", "4000")
    assert shown(cable.left, "transfer") == shown(cable.right, "transfer")[::-1]


def tcp_and_udp_pass(cable: Cable) -> None:
    for address in (cable.left.inner4, cable.left.inner6):
        for direction in ((), ("-R",)):
            through = partial(iperf3, cable.right.namespace, cable.left.namespace, address, *direction)
            tcp = through("-n", "2M", "-w", "128K")
            assert tcp["sum_received"]["bytes"] >= 2**20  # when it has sent all, it does not wait for the window
            udp = through("-u", "-b", "10M", "-k", "500")
            assert udp["sum"]["packets"] >= 500
            assert udp["sum"]["lost_percent"] < 90  # a busy machine loses many; whether they pass is what counts here


@pytest.mark.scenario("kernel netns.sh, 2")
@pytest.mark.parametrize("outer", ["IPv4", "IPv6"])
def test_tcp_and_udp_both_ways(cable: Cable, outer: str) -> None:
    """iperf3 moves two megabytes by TCP and 500 datagrams by UDP, over IPv4 and IPv6, each way."""
    if outer == "IPv6":
        cable.over_ipv6()
    bring_up(cable)
    tcp_and_udp_pass(cable)


@pytest.mark.parametrize("outer", ["IPv4", "IPv6"])
def test_tcp_and_udp_both_ways_without_offloads(cable: Cable, outer: str) -> None:
    if outer == "IPv6":
        cable.over_ipv6()
    bring_up_wgpy(cable, options=("--no-offload",))
    tcp_and_udp_pass(cable)


@pytest.mark.scenario("paper, 5.2: the preshared key")
def test_nothing_passes_with_a_wrong_preshared_key(cable: Cable) -> None:
    """When the two ends have different preshared keys, nothing passes either way, and no handshake is reported."""
    cable.open(cable.right, peer_section(cable.left, psk=PresharedKey.generate()))
    cable.open(cable.left, peer_section(cable.right, psk=PresharedKey.generate()))
    for here, there in ((cable.left, cable.right), (cable.right, cable.left)):
        said = here.namespace.run("ping", "-c", "2", "-i", "0.2", "-W", "1", there.inner4, check=False)
        assert "100% packet loss" in said
    assert shown(cable.left, "latest-handshakes") == ["0"]


def move(side: Side, version: int) -> str:
    """Another outer address for the one it has; as it stands in an endpoint."""
    old, new, length = (side.outer, "192.0.2.77", 24) if version == 4 else (side.outer, "2001:db8::77", 64)
    nodad = () if version == 4 else ("nodad",)
    add = ("ip", "address", "add", f"{new}/{length}", "dev", "veth0", *nodad)
    side.namespace.run(*add)
    side.namespace.run("ip", "address", "delete", f"{old}/{length}", "dev", "veth0")
    side.namespace.run(*add, check=False)  # for an IPv4 address may go with the one it was second to
    return new if version == 4 else f"[{new}]"


@pytest.mark.scenario("paper, 2.1: roaming", "kernel netns.sh, 4")
@pytest.mark.parametrize("version", [4, 6])
def test_4_they_roam_and_we_follow(cable: Cable, version: int) -> None:
    """When the other end speaks from another address and port, the program takes that as its endpoint."""
    if version == 6:
        cable.over_ipv6()
    bring_up(cable)
    ping_both_ways(cable)
    host = move(cable.right, version)
    cable.right.namespace.run("wg", "set", cable.right.name, "listen-port", "9999")
    cable.right.namespace.run("ping", "-c", "1", "-W", "5", cable.left.inner4)
    assert shown(cable.left, "endpoints") == [f"{host}:9999"]
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    assert shown(cable.right, "endpoints") == [cable.left.endpoint]


@pytest.mark.scenario("paper, 2.1: roaming", "kernel netns.sh, 4")
@pytest.mark.parametrize("version", [4, 6])
def test_4_we_roam_and_they_follow(cable: Cable, version: int) -> None:
    """When its own address is replaced by another, the program goes on from there."""
    if version == 6:
        cable.over_ipv6()
    bring_up(cable)
    ping_both_ways(cable)
    host = move(cable.left, version)
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    assert shown(cable.right, "endpoints") == [f"{host}:51820"]
    cable.right.namespace.run("ping", "-c", "1", "-W", "5", cable.left.inner6)


def test_stock_wg_reads_our_status(cable: Cable) -> None:
    ours, _ = bring_up_wgpy(cable, psk=PresharedKey.generate())
    ping_both_ways(cable)
    dump = cable.left.namespace.run("wg", "show", cable.left.name, "dump").splitlines()
    assert dump[0].split("\t") == [cable.left.key.base64(), cable.left.public_key.base64(), "51820", "off"]
    fields = dump[1].split("\t")
    assert fields[0] == cable.right.public_key.base64()
    assert fields[2:4] == [cable.right.endpoint, f"{cable.right.inner4}/32,{cable.right.inner6}/128"]
    assert int(fields[4]) > 1_600_000_000
    assert fields[7] == "off"
    assert wait_for(lambda: shown_by(cable, "wg") == shown_by(cable, forked_wgpy())), "but for the age of the handshake"
    assert ours.status()["public_key"] == cable.left.public_key.base64()
    assert cable.right.namespace.run("wg", "show", cable.right.name, "peers").strip() == cable.left.public_key.base64()


def shown_by(cable: Cable, *program: str) -> str:
    return cable.left.namespace.run(*program, "show", cable.left.name)


@pytest.mark.scenario("paper, 6.5: a dead peer", "kernel timers.c")
def test_traffic_resumes_after_the_peer_lost_its_sessions(cable: Cable) -> None:
    """When the other end restarts with the same keys and sends, the program makes a new session with it at once.

    What it held of the old session is void then.
    """
    _, theirs = bring_up(cable)
    ping_both_ways(cable)
    theirs.close()
    restarted = cable.open(cable.right, peer_section(cable.left))
    restarted.side.namespace.run("ping", "-c", "3", "-i", "0.2", "-W", "5", cable.left.inner4)
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)


def test_down_leaves_nothing_behind(cable: Cable) -> None:
    namespace = cable.left.namespace

    def surroundings() -> list[str]:
        commands = ("ip -o link", "ip route show table all", "ip rule", "ip -6 rule", "ss -Hlun", "nft list ruleset")
        return [namespace.run(*command.split()) for command in commands]

    assert wait_for(lambda: is_settled(namespace))
    before = surroundings()
    everything = peer_section(cable.right).replace("AllowedIPs = ", "AllowedIPs = 0.0.0.0/0, ::/0, 172.20.0.0/16, ")
    cable.open(cable.right, peer_section(cable.left))
    ours = Wgpy(cable.left, cable.directory, everything)
    assert wait_for(lambda: cable.left.name in namespace.run("ip", "-o", "link"))
    ping_both_ways(cable)
    ours.close()
    assert surroundings() == before


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", ["kernel"])
def test_a_rekey_loses_no_packet(cable: Cable) -> None:
    """Over the 120 seconds after which we, who began the session, renew it; a ping a tenth of a second, none lost."""
    ours, _ = bring_up_wgpy(cable)
    said = cable.left.namespace.run("ping", "-i", "0.1", "-w", "128", cable.right.inner4, timeout=150)
    answered = [int(number) for number in re.findall(r"icmp_seq=(\d+) ", said)]
    assert sorted(answered) == [*range(1, max(answered) + 1)], "the last ones may be under way when ping ends"
    (peer,) = ours.status()["peers"]
    assert peer["latest_handshake"] > time.time() - 60, "there was a second handshake"
