"""`wgpy apply`: a running interface gets the settings of its file, and what stays the same is not disturbed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import Cable
from tests.support.forked import forked_wgpy
from tests.support.netns import is_settled
from tests.support.peers import WGPY, Wgpy, WireguardGo, peer_section, wait_for, wgpy_program
from tests.support.tools import Tools
from wgpy.keys import PrivateKey

pytestmark = pytest.mark.root

OTHER = PrivateKey(b"o" * 32).public_key.base64()


def bring_up(cable: Cable) -> tuple[Wgpy, WireguardGo]:
    theirs = WireguardGo(cable.right, peer_section(cable.left))
    cable.cleanup.callback(theirs.close)
    ours = Wgpy(cable.left, cable.directory, peer_section(cable.right))
    cable.cleanup.callback(ours.close)
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    return ours, theirs


def apply(ours: Wgpy, *, check: bool = True) -> str:
    return ours.side.namespace.run(forked_wgpy(), "apply", str(ours.path), check=check)


def edit(ours: Wgpy, interface: str = "", allowed_ips: str = "") -> None:
    """Add lines to [Interface], and networks before the peer's."""
    text = ours.path.read_text().replace("[Interface]\n", f"[Interface]\n{interface}\n")
    ours.path.write_text(text.replace("AllowedIPs = ", f"AllowedIPs = {allowed_ips}", 1))


def test_additions_and_removals_are_applied_while_traffic_passes(cable: Cable) -> None:
    ours, theirs = bring_up(cable)
    run, name = cable.left.namespace.run, cable.left.name
    before = ours.path.read_text()
    handshake = theirs.wg("latest-handshakes")
    pinging = cable.left.namespace.popen("ping", "-i", "0.05", "-c", "100", "-q", cable.right.inner4, stdout=-1)
    ours.path.write_text(
        before.replace("Address = ", "Address = 10.77.0.1/24, ").replace("[Interface]", "[Interface]\nMTU = 1300")
        + f"[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 172.16.0.0/12, 10.77.0.128/25\nPersistentKeepalive = 30\n"
    )
    said = apply(ours)
    for step in (f"wg syncconf {name}", "address add 10.77.0.1/24", "mtu 1300", "route add 172.16.0.0/12"):
        assert step in said
    assert "10.77.0.128/25" not in said, "the address's own route leads there already"
    assert "172.16.0.0/12" in run("ip", "route", "show", "dev", name)
    assert "mtu 1300" in run("ip", "link", "show", name)
    assert OTHER in run("wg", "show", name, "peers")
    assert apply(ours) == "", "there is nothing left to do"
    ours.path.write_text(before)
    said = apply(ours)
    for step in ("syncconf", "address delete 10.77.0.1/24", "route delete 172.16.0.0/12"):
        assert step in said
    assert OTHER not in run("wg", "show", name, "peers")
    report, _ = pinging.communicate(timeout=60)
    assert " 0% packet loss" in report
    assert theirs.wg("latest-handshakes") == handshake


def test_without_listen_port_in_the_file_the_port_stays(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    ours.path.write_text(ours.path.read_text().replace("ListenPort = 51820\n", ""))
    assert apply(ours) == ""
    assert ours.status()["listen_port"] == 51820


def test_a_default_route_comes_and_goes_with_its_mark_rules_and_guard(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    run, name = cable.left.namespace.run, cable.left.name

    def surroundings() -> list[str]:
        shown = "ip route show table all; ip rule; ip -6 rule; nft list ruleset; wg show NAME fwmark"
        return sorted(run("bash", "-c", shown.replace("NAME", name)).splitlines())

    assert wait_for(lambda: is_settled(cable.left.namespace))
    before, file = surroundings(), ours.path.read_text()
    edit(ours, allowed_ips="0.0.0.0/0, ::/0, ")
    apply(ours)
    assert f"dev {name}" in run("ip", "route", "get", "198.51.100.1")
    assert f"dev {name}" in run("ip", "-6", "route", "get", "2001:db8:99::1")
    assert "fib saddr type != local drop" in run("nft", "list", "ruleset")
    run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    assert apply(ours) == ""
    edit(ours, "FwMark = 0x123\nAddress = 10.9.8.7")
    apply(ours)
    assert "not from all fwmark 0x123 lookup 291" in run("ip", "rule")
    assert "10.9.8.7 fib saddr" in run("nft", "list", "ruleset"), "the guard knows the new address"
    run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    ours.path.write_text(file)
    apply(ours)
    assert surroundings() == before
    run("ping", "-c", "1", "-W", "5", cable.right.inner4)


def test_down_undoes_a_default_route_that_apply_set(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    edit(ours, allowed_ips="0.0.0.0/0, ")
    apply(ours)
    ours.close()
    assert "lookup 51820" not in cable.left.namespace.run("ip", "rule")
    assert cable.left.namespace.run("nft", "list", "ruleset") == ""


def test_dns_is_changed_and_undone(cable: Cable, tmp_path: Path) -> None:
    ours, _ = bring_up(cable)
    ours.close()
    tools = Tools(tmp_path)
    tools.add("resolvconf")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def wgpy(verb: str) -> str:
        return cable.left.namespace.run(forked_wgpy(), verb, str(ours.path), env=environment)

    file = ours.path.read_text()
    wgpy("up")
    edit(ours, "DNS = 10.77.0.53, example.org")
    assert "set DNS" in wgpy("apply")
    added = [f"resolvconf -a {ours.side.name} -m 0 -x", "< nameserver 10.77.0.53", "< search example.org"]
    assert tools.calls() == added
    assert wgpy("apply") == ""
    ours.path.write_text(file)
    wgpy("apply")
    wgpy("down")
    assert tools.calls() == [*added, f"resolvconf -d {ours.side.name} -f"]


def test_apply_runs_no_hooks_and_down_uses_the_new_ones(cable: Cable, tmp_path: Path) -> None:
    ours, _ = bring_up(cable)
    edit(ours, f"PostUp = touch {tmp_path}/up\nPostDown = touch {tmp_path}/down")
    assert apply(ours) == ""
    ours.close()
    assert not (tmp_path / "up").exists()
    assert (tmp_path / "down").exists()


def test_routes_and_addresses_that_are_in_no_file_stay(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    run, name = cable.left.namespace.run, cable.left.name
    run("ip", "route", "add", "198.51.100.0/24", "dev", name)
    run("ip", "address", "add", "10.88.0.1/32", "dev", name)
    edit(ours, "Address = 10.77.0.1/24")
    assert apply(ours).count("\n") == 1
    assert "198.51.100.0/24" in run("ip", "route")
    assert "10.88.0.1/32" in run("ip", "address")


def test_an_interface_that_wg_quick_brought_up_is_changed_too(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    ours.close()
    run = cable.left.namespace.run
    cable.cleanup.callback(run, "wg-quick", "down", str(ours.path), check=False)
    run("env", f"WG_QUICK_USERSPACE_IMPLEMENTATION={wgpy_program(cable.directory)}", "wg-quick", "up", str(ours.path))
    file = ours.path.read_text()
    edit(ours, "MTU = 1300", "172.16.0.0/12, ")
    said = apply(ours)
    for step in ("syncconf", "mtu 1300", "route add 172.16.0.0/12"):
        assert step in said
    ours.path.write_text(file)
    assert "route delete 172.16.0.0/12" in apply(ours)
    run("wg-quick", "down", str(ours.path))


def test_the_steps_can_be_printed_as_json(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    edit(ours, "MTU = 1300")
    command = (forked_wgpy(), "apply", "--json", str(ours.path))
    said = json.loads(ours.side.namespace.run(*command))
    assert said == {"interface": ours.side.name, "steps": [f"ip link set mtu 1300 dev {ours.side.name}"], "error": None}
    edit(ours, "Table = nonsense")
    said = json.loads(ours.side.namespace.run(*command, check=False, stderr=subprocess.DEVNULL))
    assert "nonsense" in said["error"]
    assert f"wgpy: {ours.side.name}: routing table" in ours.side.namespace.run(*command, check=False)


def test_apply_refuses_an_interface_of_another_program(cable: Cable) -> None:
    _, theirs = bring_up(cable)
    path = cable.directory / f"{theirs.side.name}.conf"
    path.write_text("[Interface]\n")
    said = theirs.side.namespace.run(forked_wgpy(), "apply", str(path), check=False)
    assert "not served by wgpy" in said
    assert "Traceback" not in said


def test_a_file_with_a_mistake_changes_nothing(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    before = ours.status()["peers"][0]["allowed_ips"]
    ours.path.write_text(ours.path.read_text() + "AllowedIPs = 10.0.0.0/33\nMTU = 5\n")
    said = apply(ours, check=False)
    assert said.count("\n") == 2, said
    assert ours.status()["peers"][0]["allowed_ips"] == before


def test_a_larger_mtu_is_set_before_the_ipv6_addresses_that_need_it(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    run, name = cable.left.namespace.run, cable.left.name
    run("ip", "link", "set", name, "mtu", "1200")  # at which the kernel takes away IPv6
    assert cable.left.inner6 not in run("ip", "-6", "address", "show", "dev", name)
    edit(ours, "MTU = 1400")
    assert f"address add {cable.left.inner6}/64" in apply(ours)
    assert cable.left.inner6 in run("ip", "-6", "address", "show", "dev", name)
    assert "mtu 1400" in run("ip", "link", "show", name)


def test_an_mtu_too_small_for_ipv6_is_refused_and_changes_nothing(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    before = surroundings(cable)
    edit(ours, "MTU = 1200")
    assert "MTU: expected at least 1280" in apply(ours, check=False)
    assert surroundings(cable) == before
    cable.left.namespace.run("ping", "-c", "1", "-W", "5", cable.right.inner6)


def surroundings(cable: Cable) -> list[str]:
    """Everything that `apply` may change, with routes in sorted order."""
    name, run = cable.left.name, cable.left.namespace.run
    assert wait_for(lambda: is_settled(cable.left.namespace))
    shown = (
        "ip -o address show dev NAME | sed 's/ *valid_lft.*//'; ip link show NAME; ip route show table all; "
        "ip -6 route show table all; ip rule; nft list ruleset; wg showconf NAME"
    )
    return sorted(run("bash", "-c", shown.replace("NAME", name)).splitlines())


@pytest.mark.parametrize("default", [False, True])
def test_an_apply_that_fails_half_way_is_undone(cable: Cable, default: bool) -> None:
    """What `wg set` had changed is restored as well, although it is in no file; and the session stays."""
    ours, theirs = bring_up(cable)
    run, name = cable.left.namespace.run, cable.left.name
    if default:
        edit(ours, allowed_ips="0.0.0.0/0, ")
        apply(ours)
    run("wg", "set", name, "peer", OTHER, "allowed-ips", "10.99.0.0/24", "endpoint", "192.0.2.9:9")
    run("ip", "route", "add", "blackhole", "172.16.0.0/12")
    run("ip", "link", "set", name, "mtu", "1360")
    before, handshake = surroundings(cable), theirs.wg("latest-handshakes")
    edit(ours, "MTU = 1300\nAddress = 10.88.0.1/24\nListenPort = 5000", "172.16.0.0/12, ")
    said = apply(ours, check=False)
    assert "mtu 1300" in said
    assert "10.88.0.1/24" in said
    assert "cannot add route 172.16.0.0/12" in said.splitlines()[-1]
    assert "continuing" not in said
    assert surroundings(cable) == before
    edit(ours, "Table = nosuchtable")
    assert "'nosuchtable' has no number" in apply(ours, check=False)
    assert surroundings(cable) == before
    run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    assert theirs.wg("latest-handshakes") == handshake


def test_a_default_route_that_cannot_be_added_is_undone(cable: Cable) -> None:
    """It once tried to delete what had never been added, which failed, so the rest was not undone."""
    ours, _ = bring_up(cable)
    cable.left.namespace.run("ip", "route", "add", "blackhole", "default", "table", "77")
    before = surroundings(cable)
    edit(ours, "FwMark = 77\nMTU = 1300\nAddress = 10.88.0.1/24", "0.0.0.0/0, ")
    said = apply(ours, check=False)
    assert "cannot add route 0.0.0.0/0" in said.splitlines()[-1]
    assert "continuing" not in said
    assert surroundings(cable) == before


def test_strip_prints_what_wg_accepts(cable: Cable) -> None:
    ours, _ = bring_up(cable)
    run, name = cable.left.namespace.run, cable.left.name
    stripped = run(forked_wgpy(), "strip", str(ours.path))
    assert "Address" not in stripped
    before = run("wg", "showconf", name)
    run("bash", "-c", f"wg syncconf {name} <({' '.join(WGPY)} strip {ours.path})")
    assert run("wg", "showconf", name) == before
