"""The firewall rules of a full tunnel are those of wg-quick, work on real packets, and are removed afterwards."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.interop.conftest import Cable
from tests.interop.conftest import cable as cable
from tests.support.forked import forked_wgpy
from tests.support.netns import is_settled
from tests.support.peers import WGPY, Side, Wgpy, WireguardGo, capture, peer_section, wait_for, wgpy_program
from tests.support.tools import path_without
from wgpy.daemon.uapi_client import socket_path

pytestmark = pytest.mark.root


# Keeps one file as resolvconf keeps /etc/resolv.conf.
RESOLVCONF = """#!/bin/sh
cd {directory}
case $1 in
-a) mv resolv.conf before && cat >resolv.conf ;;
-d) mv before resolv.conf ;;
esac
"""


def everything_through(cable: Cable, extra: str = "") -> Wgpy:
    theirs = WireguardGo(cable.right, peer_section(cable.left))
    cable.cleanup.callback(theirs.close)
    peer = re.sub("AllowedIPs = .*", "AllowedIPs = 0.0.0.0/0, ::/0", peer_section(cable.right))
    ours = Wgpy(cable.left, cable.directory, peer, extra=extra)
    cable.cleanup.callback(ours.close)
    return ours


def ruleset(cable: Cable) -> str:
    """The rules without handles and comments, normalized."""
    return cable.left.namespace.run("nft", "-nn", "list", "ruleset")


def test_the_nft_rules_are_those_of_wg_quick(cable: Cable) -> None:
    """The commands that linux.bash of wireguard-tools runs make the same rule set."""
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


def fails(directory: Path, *programs: str) -> None:
    for name in programs:
        (directory / name).unlink(missing_ok=True)
        (directory / name).write_text("#!/bin/sh\necho 'Operation not supported' >&2\nexit 1\n")
        (directory / name).chmod(0o755)


def test_without_nft_the_iptables_rules_are_those_of_wg_quick(cable: Cable, tmp_path: Path) -> None:
    """Both programs run where nft is missing, and leave the same; ours also changes it as the file changes.

    An nft that is there but fails, as on a kernel without nf_tables, is to ours as one that is missing.
    """
    run, name = cable.left.namespace.run, cable.left.name
    programs = tmp_path / "programs"
    programs.mkdir()
    environment = {**os.environ, "PATH": path_without(programs, "nft")}
    environment["WG_QUICK_USERSPACE_IMPLEMENTATION"] = str(wgpy_program(tmp_path))

    def rules() -> list[str]:
        saved = run("bash", "-c", "iptables-save; ip6tables-save")
        return sorted(line for line in saved.splitlines() if line.startswith("-A"))

    path = tmp_path / f"{name}.conf"
    path.touch(mode=0o600)
    text = (
        f"[Interface]\nAddress = {cable.left.inner4}/24, {cable.left.inner6}/64\n"
        f"PrivateKey = {cable.left.key.base64()}\n"
        f"{peer_section(cable.right)}, 0.0.0.0/0, ::/0\n"
    )
    path.write_text(text)
    run("wg-quick", "up", str(path), env=environment)
    theirs = rules()
    assert len(theirs) == 6
    run("wg-quick", "down", str(path), env=environment)
    assert rules() == []
    assert wait_for(lambda: not socket_path(name).exists())
    fails(programs, "nft")
    run(forked_wgpy(), "up", str(path), env=environment)
    assert rules() == theirs
    path.write_text(text.replace("Address = ", "Address = 10.77.0.1/32, "))
    run(forked_wgpy(), "apply", str(path), env=environment)
    assert next(rule for rule in rules() if rule not in theirs).startswith("-A PREROUTING -d 10.77.0.1/32 ! -i")
    assert len(rules()) == 7
    run(forked_wgpy(), "down", str(path), env=environment)
    assert rules() == []


def test_without_a_working_firewall_tool_up_succeeds_and_names_what_is_missing(cable: Cable, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    environment = {**os.environ, "PATH": path_without(programs, "nft", "iptables-restore")}
    fails(programs, "nft", "iptables-restore")
    name = cable.left.name
    path = tmp_path / f"{name}.conf"
    path.touch(mode=0o600)
    path.write_text(f"[Interface]\nPrivateKey = {cable.left.key.base64()}\n{peer_section(cable.right)}, 0.0.0.0/0\n")
    said = cable.left.namespace.run(forked_wgpy(), "up", str(path), env=environment)
    assert "no firewall rules against spoofed IPv4 packets: nft: Operation not supported; iptables-restore: Op" in said
    assert ruleset(cable) == ""
    cable.left.namespace.run(forked_wgpy(), "down", str(path), env=environment)


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
def test_nothing_leaks_outside_a_full_tunnel(
    cable: Cable, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a default route outside: what goes anywhere goes through the tunnel, and back, and nothing else passes.

    And what is there after `down` is what was there before `up`.
    """
    left, right = cable.left, cable.right
    run = left.namespace.run
    programs, resolv_conf = tmp_path / "programs", tmp_path / "resolv.conf"
    programs.mkdir()
    (programs / "resolvconf").write_text(RESOLVCONF.format(directory=tmp_path))
    (programs / "resolvconf").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    resolv_conf.write_text("nameserver 192.0.2.53\n")
    run("ip", "route", "add", "default", "via", right.outer)
    run("ip", "-6", "route", "add", "default", "via", "2001:db8::2")
    for far in ("203.0.113.5/32", "2001:db8:99::5/128"):
        right.namespace.run("ip", "address", "add", far, "dev", "lo")
    assert wait_for(lambda: is_settled(cable.left.namespace))

    def surroundings() -> str:
        shown = "ip -o link; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; nft list ruleset"
        return run("bash", "-c", f"{shown}; cat {resolv_conf}")

    before = surroundings()
    ours = everything_through(cable, "DNS = 203.0.113.5, example.org")
    if program == "wg-quick":
        ours.close()
        cable.cleanup.callback(run, "wg-quick", "down", str(ours.path), check=False)
        variable = f"WG_QUICK_USERSPACE_IMPLEMENTATION={wgpy_program(cable.directory)}"
        run("env", variable, "wg-quick", "up", str(ours.path))
    assert resolv_conf.read_text() == "nameserver 203.0.113.5\nsearch example.org\n"
    inside = "host 203.0.113.5 or host 2001:db8:99::5"
    outside = f"not (udp port {right.port}) and not arp and not ip6 multicast and not (icmp6 and ip6[40] >= 133)"
    with capture(left.namespace, "veth0", outside) as seen, capture(left.namespace, left.name, inside) as carried:
        for far in ("203.0.113.5", "2001:db8:99::5"):
            run("ping", "-c", "3", "-i", "0.2", "-W", "5", far)
            for protocol in ("udp", "tcp"):  # where nothing listens
                run("bash", "-c", f"echo >/dev/{protocol}/{far}/99", check=False)
    assert seen == []
    for told in ("ICMP echo reply", "ICMP6, echo reply", "5.99: UDP", "5.99: Flags [S]", "203.0.113.5.99 > 10.8.0.1"):
        assert told in "\n".join(carried)
    if program == "wg-quick":
        run("wg-quick", "down", str(ours.path))
        assert wait_for(lambda: not socket_path(left.name).exists())
    else:
        ours.close()
    assert surroundings() == before


def test_a_full_tunnel_works_where_sysctls_are_read_only(cable: Cable) -> None:
    """As in most containers, `up` prints what could not be set and who can set it, and the tunnel comes up."""

    class Contained(Wgpy):
        program = ("unshare", "-m", "sh", "-c", 'mount -o bind,ro /proc/sys /proc/sys && exec "$@"', "sh", *WGPY)

    theirs = WireguardGo(cable.right, peer_section(cable.left))
    cable.cleanup.callback(theirs.close)
    peer = re.sub("AllowedIPs = .*", "AllowedIPs = 0.0.0.0/0, ::/0", peer_section(cable.right))
    ours = Contained(cable.left, cable.directory, peer)
    cable.cleanup.callback(ours.close)
    assert "net.ipv4.conf.all.src_valid_mark cannot be set here (Read-only file system)" in ours.said
    assert "set it to 1 on the host" in ours.said
    for address in (cable.right.inner4, cable.right.inner6):
        cable.left.namespace.run("ping", "-c", "1", "-W", "5", address)


def test_two_tunnels_do_not_touch_each_others_rules(cable: Cable) -> None:
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
