"""The nftables rules of a tunnel that carries everything: wg-quick's own, proved by packets, and gone afterwards."""

from __future__ import annotations

import re

import pytest

from tests.interop.conftest import Cable
from tests.interop.conftest import cable as cable
from tests.support.peers import Side, Wgpy, WireguardGo, capture, peer_section, wait_for, wgpy_program

pytestmark = pytest.mark.root


def everything_through(cable: Cable) -> Wgpy:
    theirs = WireguardGo(cable.right, peer_section(cable.left))
    cable.cleanup.callback(theirs.close)
    peer = re.sub("AllowedIPs = .*", "AllowedIPs = 0.0.0.0/0, ::/0", peer_section(cable.right))
    ours = Wgpy(cable.left, cable.directory, peer)
    cable.cleanup.callback(ours.close)
    return ours


def ruleset(cable: Cable) -> str:
    """Without handles and comments, in one spelling."""
    return cable.left.namespace.run("nft", "-nn", "list", "ruleset")


def test_the_rules_are_those_of_wg_quick(cable: Cable) -> None:
    """Its commands, as linux.bash of wireguard-tools composes them, make the same rule set."""
    before = ruleset(cable)
    ours = everything_through(cable)
    made = ruleset(cable)
    ours.close()
    assert ruleset(cable) == before == ""
    script = ""
    for family, address in (("ip", cable.left.inner4), ("ip6", cable.left.inner6)):
        table = f"{family} wg-quick-{cable.left.name}"
        script += f"""
add table {table}
add chain {table} preraw {{ type filter hook prerouting priority -300; }}
add chain {table} premangle {{ type filter hook prerouting priority -150; }}
add chain {table} postmangle {{ type filter hook postrouting priority -150; }}
add rule {table} preraw iifname != "{cable.left.name}" {family} daddr {address} fib saddr type != local drop
add rule {table} postmangle meta l4proto udp mark 51820 ct mark set mark
add rule {table} premangle meta l4proto udp meta mark set ct mark
"""
    cable.left.namespace.run("nft", "-f", "-", input=script)
    theirs = ruleset(cable)
    assert sorted(made.split("table ")) == sorted(theirs.split("table "))


def test_a_packet_to_the_tunnels_address_from_outside_it_is_dropped(cable: Cable) -> None:
    left, right = cable.left, cable.right
    ours = everything_through(cable)
    right.namespace.run("ping", "-c", "1", "-W", "5", left.inner4)
    # A neighbour on the cable, not the peer, sends to the tunnel's address.
    right.namespace.run("ip", "address", "add", "192.0.2.66/24", "dev", "veth0")
    right.namespace.run("ip", "rule", "add", "from", "192.0.2.66", "table", "66", "priority", "1")
    right.namespace.run("ip", "route", "add", left.inner4, "via", left.outer, "dev", "veth0", "table", "66")
    spoof = ("ping", "-c", "2", "-i", "0.2", "-W", "1", "-I", "192.0.2.66", left.inner4)
    assert "100% packet loss" in right.namespace.run(*spoof, check=False)
    left.namespace.run("nft", "flush", "ruleset")
    left.namespace.run("ip", "rule", "add", "to", "192.0.2.66", "table", "main", "priority", "1")
    assert " 0% packet loss" in right.namespace.run(*spoof), "it was the rules that dropped it"
    left.namespace.run("ip", "rule", "delete", "priority", "1")
    ours.close()


def test_strict_reverse_path_filtering_lets_the_tunnel_work(cable: Cable) -> None:
    for where in ("all", "default", "veth0"):
        cable.left.namespace.run("sysctl", "-qw", f"net.ipv4.conf.{where}.rp_filter=1")
    everything_through(cable)
    cable.left.namespace.run("ping", "-c", "3", "-i", "0.2", "-W", "5", cable.right.inner4)
    cable.right.namespace.run("ping", "-c", "3", "-i", "0.2", "-W", "5", cable.left.inner4)


@pytest.mark.parametrize("program", ["wgpy", "wg-quick"])
def test_nothing_leaks_beside_a_tunnel_that_carries_everything(cable: Cable, program: str) -> None:
    """With a default route outside: what goes anywhere goes through the tunnel, and back, and nothing else passes."""
    left, right = cable.left, cable.right
    run = left.namespace.run
    run("ip", "route", "add", "default", "via", right.outer)
    run("ip", "-6", "route", "add", "default", "via", "2001:db8::2")
    for far in ("203.0.113.5/32", "2001:db8:99::5/128"):
        right.namespace.run("ip", "address", "add", far, "dev", "lo")
    ours = everything_through(cable)
    if program == "wg-quick":
        ours.close()
        cable.cleanup.callback(run, "wg-quick", "down", str(ours.path), check=False)
        variable = f"WG_QUICK_USERSPACE_IMPLEMENTATION={wgpy_program(cable.directory)}"
        run("env", variable, "wg-quick", "up", str(ours.path))
    outside = f"not (udp port {right.port}) and not arp and not ip6 multicast and not (icmp6 and ip6[40] >= 133)"
    with capture(left.namespace, "veth0", outside) as seen:
        for far in ("203.0.113.5", "2001:db8:99::5"):
            run("ping", "-c", "3", "-i", "0.2", "-W", "5", far)
    assert seen == []
    if program == "wg-quick":
        run("wg-quick", "down", str(ours.path))
        assert wait_for(lambda: left.name not in run("ip", "-o", "link"))


def test_two_tunnels_keep_out_of_each_others_rules(cable: Cable) -> None:
    first = everything_through(cable)
    rules = cable.left.namespace.run("ip", "rule")
    made = ruleset(cable)
    other = Side(cable.left.namespace, cable.left.outer, "10.99.0.1", "fd99::1", port=51999)
    peer = peer_section(cable.right).split("AllowedIPs")[0] + "AllowedIPs = 0.0.0.0/0"
    second = Wgpy(other, cable.directory, peer)
    assert cable.left.namespace.run("ip", "rule") != rules
    second.close()
    assert cable.left.namespace.run("ip", "rule") == rules
    assert ruleset(cable) == made
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    first.close()
    assert wait_for(lambda: "51820" not in cable.left.namespace.run("ip", "rule"))
