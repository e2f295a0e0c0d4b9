"""Netlink verbs against the real kernel, judged by `ip`, each in a network namespace of its own."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from ipaddress import IPv6Address, IPv6Network, ip_interface, ip_network
from typing import Any

import pyroute2  # noqa: F401  # imported here once, not in every child
import pytest

from tests.support.netns import in_fresh_namespace
from wgpy.errors import NetworkError
from wgpy.net.netlink import Netlink, _Networks

pytestmark = pytest.mark.root

FAMILIES = [socket.AF_INET, socket.AF_INET6]


def ip(command: str) -> str:
    return subprocess.run(["ip", *command.split()], check=True, stdout=subprocess.PIPE, text=True).stdout


def ip_json(command: str) -> Any:
    return json.loads(ip(f"-json {command}"))


def all_rules() -> str:
    return ip("-4 -details rule") + ip("-6 -details rule")


def tun(name: str, *addresses: str) -> None:
    ip(f"tuntap add {name} mode tun")
    for address in addresses:
        ip(f"address add {address} dev {name}")
    ip(f"link set {name} up")


@in_fresh_namespace
def test_links_are_found_and_changed() -> None:
    tun("wg0")
    with Netlink() as netlink:
        assert netlink.link_index("wg0") == socket.if_nametoindex("wg0")
        assert netlink.link_exists("wg0")
        assert not netlink.link_exists("wg9")
        netlink.set_mtu("wg0", 1380)
        assert netlink.link_mtu("wg0") == ip_json("link show wg0")[0]["mtu"] == 1380
        netlink.set_down("wg0")
        assert "UP" not in ip_json("link show wg0")[0]["flags"]
        netlink.set_up("wg0")
        assert "UP" in ip_json("link show wg0")[0]["flags"]
        netlink.delete_link("wg0")
        assert not netlink.link_exists("wg0")


@in_fresh_namespace
def test_addresses_are_added_as_by_ip() -> None:
    tun("wg0")
    tun("wg1")
    with Netlink() as netlink:
        for address in ("10.0.0.1/24", "10.1.0.1/32", "fd00::1/64", "fd01::1/128"):
            netlink.add_address("wg0", ip_interface(address))
            ip(f"address add {address} dev wg1")

    def shown(name: str) -> list[dict[str, Any]]:
        ip_addresses = [a for a in ip_json(f"address show {name}")[0]["addr_info"] if a["scope"] != "link"]
        return [a | {"label": None} for a in ip_addresses]

    assert len(shown("wg0")) == 4
    assert shown("wg0") == shown("wg1")


@pytest.mark.parametrize("table", [254, 51820])
@in_fresh_namespace
def test_routes_are_added_as_by_ip(table: int) -> None:
    tun("wg0")
    networks = ["10.0.0.0/8", "10.1.2.3/32", "0.0.0.0/0", "fd00::/8", "fd01::1/128", "::/0"]

    def shown() -> list[dict[str, Any]]:
        # Not by number: `ip` fails for a table without routes.
        routes = [*ip_json("-4 -details route show table all"), *ip_json("-6 -details route show table all")]
        return [route for route in routes if route.get("table") == {254: "main"}.get(table, str(table))]

    before = shown()
    with Netlink() as netlink:
        for network in networks:
            netlink.add_route(ip_network(network), "wg0", table)
    ours = shown()
    assert len(ours) == len(before) + len(networks)
    for network in networks:
        ip(f"route delete {network} dev wg0 table {table}")
        ip(f"route add {network} dev wg0 table {table}")
    assert ours == shown()


def test_among_many_routes_the_one_that_covers_a_network_is_found_with_little_work() -> None:
    """Each of an IPv6 network's 129 prefixes was made and looked for."""
    count, first = 1000, int(IPv6Address("2001:db8::"))
    own, calls = _Networks(), 0
    for text in ("fd00::/16", "10.0.0.0/8", *(str(IPv6Address(first + number)) for number in range(count))):
        own.add(ip_network(text))

    def count_calls(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count_calls)
    try:
        found = [number for number in range(2 * count) if own.cover(IPv6Network((first + number, 128)))]
    finally:
        sys.setprofile(None)
    assert found == list(range(count))
    assert calls < 50 * 2 * count
    covered = ["fd00::/16", "fd00:1::/64", "10.1.0.0/16", "10.0.0.0/8", "fd00::/15", "10.0.0.0/7", "fe00::/16", "::/0"]
    assert [own.cover(ip_network(network)) for network in covered] == [True] * 4 + [False] * 4


@in_fresh_namespace
def test_route_covered_agrees_with_ip_route_match() -> None:
    tun("wg0", "10.0.0.1/24", "fd00::1/64")
    tun("wg1", "10.7.0.1/16")
    networks = ["10.0.0.0/24", "10.0.0.7/32", "10.0.0.0/23", "10.7.0.0/24", "0.0.0.0/0", "192.0.2.0/24", "192.0.2.1/32"]
    networks += ["fd00::/64", "fd00::5/128", "fd00::/63", "::/0"]

    def agree(netlink: Netlink) -> list[str]:
        covered = [network for network in networks if netlink.route_covered(ip_network(network), "wg0")]
        for network in networks:
            family = 6 if ":" in network else 4
            assert bool(ip(f"-{family} route show dev wg0 match {network}")) == (network in covered), network
        return covered

    with Netlink() as netlink:
        assert agree(netlink) == ["10.0.0.0/24", "10.0.0.7/32", "fd00::/64", "fd00::5/128"]
        netlink.add_route(ip_network("192.0.2.0/24"), "wg0")
        assert "192.0.2.1/32" in agree(netlink)
        netlink.add_route(ip_network("10.7.0.0/24"), "wg0", 51820)
        assert "10.7.0.0/24" not in agree(netlink)
        netlink.add_address("wg0", ip_interface("10.7.0.1/16"))
        assert "10.7.0.0/24" in agree(netlink)
        netlink.add_route(ip_network("0.0.0.0/0"), "wg0")
        assert "10.0.0.0/23" in agree(netlink)


@in_fresh_namespace
def test_the_path_mtu_is_that_of_the_route_or_the_device() -> None:
    tun("wg0", "10.0.0.1/24", "fd00::1/64", "fe80::9/64")
    ip("link set wg0 mtu 1400")
    with Netlink() as netlink:
        assert netlink.default_route_mtu() is None
        assert netlink.path_mtu("192.0.2.1") is None
        assert netlink.path_mtu("2001:db8::1") is None
        ip("route add 192.0.2.0/24 via 10.0.0.2 mtu 1300")
        ip("route add 2001:db8::/32 via fd00::2 mtu 1290")
        assert netlink.path_mtu("10.0.0.2") == 1400
        assert netlink.path_mtu("192.0.2.1") == 1300
        assert netlink.path_mtu("fd00::2") == 1400
        assert netlink.path_mtu("2001:db8::1") == 1290
        assert netlink.path_mtu("fe80::1%wg0") == 1400
        assert netlink.path_mtu(f"fe80::1%{socket.if_nametoindex('wg0')}") == 1400
        assert netlink.path_mtu("fe80::1%wg9") is None


@in_fresh_namespace
def test_default_route_mtu_prefers_ipv4_and_the_better_metric() -> None:
    tun("wg0", "10.0.0.1/24", "fd00::1/64")
    with Netlink() as netlink:
        ip("route add default via fd00::2 mtu 1290")
        assert netlink.default_route_mtu() == 1290
        ip("route add default via 10.0.0.2 metric 20 mtu 1310")
        assert netlink.default_route_mtu() == 1310
        ip("route add default dev wg0 metric 10")
        assert netlink.default_route_mtu() == 1500


@in_fresh_namespace
def test_unused_table_has_neither_routes_nor_rules() -> None:
    tun("wg0", "10.0.0.1/24", "fd00::1/64")
    with Netlink() as netlink:
        assert netlink.unused_table() == 51820
        ip("route add default dev wg0 table 51820")
        ip("-6 route add default dev wg0 table 51821")
        ip("rule add from 10.0.0.9 table 51822")
        assert netlink.unused_table() == 51823
        assert netlink.unused_table(51830) == 51830


@pytest.mark.parametrize("family", FAMILIES)
@in_fresh_namespace
def test_rules_are_added_as_by_ip(family: int) -> None:
    before = all_rules()
    with Netlink() as netlink:
        rules = [netlink.add_rule_not_fwmark(family, 51820, 51820), netlink.add_rule_suppress_default(family)]
        ours = all_rules()
        for rule in rules:
            netlink.delete_rule(rule)
    assert all_rules() == before
    version = 4 if family == socket.AF_INET else 6
    ip(f"-{version} rule add not fwmark 51820 table 51820")
    ip(f"-{version} rule add table main suppress_prefixlength 0")
    assert ours == all_rules()
    assert "suppress_prefixlength 0" in ours
    assert "not from all fwmark 0xca6c lookup 51820" in ours


@in_fresh_namespace
def test_deleting_a_rule_leaves_an_equal_rule_of_another_program() -> None:
    for version in (4, 6):
        ip(f"-{version} rule add not fwmark 51820 table 51820")
        ip(f"-{version} rule add table main suppress_prefixlength 0")
        ip(f"-{version} rule add fwmark 51820 table 51820 priority 99")
    before = all_rules()
    with Netlink() as netlink:
        rules = [netlink.add_rule_not_fwmark(family, 51820, 51820) for family in FAMILIES]
        rules += [netlink.add_rule_suppress_default(family) for family in FAMILIES]
        for version in (4, 6):  # somebody else comes later, too
            ip(f"-{version} rule add table main suppress_prefixlength 0 priority 7")
    with Netlink() as later:
        for rule in rules:
            later.delete_rule(rule)
        with pytest.raises(NetworkError, match=r"cannot delete rule .*: No such file or directory"):
            later.delete_rule(rules[0])
    for version in (4, 6):
        ip(f"-{version} rule delete table main suppress_prefixlength 0 priority 7")
    assert all_rules() == before


@in_fresh_namespace
def test_a_failure_names_the_step_and_the_reason() -> None:
    tun("wg0", "10.0.0.1/24")
    ip("route add 10.0.0.0/8 dev wg0")
    with Netlink() as netlink:
        with pytest.raises(NetworkError, match='Cannot find device "wg9"'):
            netlink.set_up("wg9")
        with pytest.raises(NetworkError, match=r"cannot add address 10\.0\.0\.1/24 to wg0: File exists"):
            netlink.add_address("wg0", ip_interface("10.0.0.1/24"))
        with pytest.raises(NetworkError, match=r"cannot add route 10\.0\.0\.0/8 dev wg0 table 254: File exists"):
            netlink.add_route(ip_network("10.0.0.0/8"), "wg0")
        with pytest.raises(NetworkError, match="cannot set the MTU of wg0 to 9999999: Invalid argument"):
            netlink.set_mtu("wg0", 9999999)


@in_fresh_namespace
def test_the_error_without_privilege_names_the_capability() -> None:
    tun("wg0")
    with Netlink() as netlink:
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(NetworkError, match=rf"{os.strerror(errno.EPERM)} \(CAP_NET_ADMIN is missing: "):
            netlink.set_down("wg0")
