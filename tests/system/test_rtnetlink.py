"""Our own few netlink requests, answered by the real kernel, each test in its own namespace."""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests.support.netns import in_fresh_namespace
from wgpy.system import rtnetlink

pytestmark = pytest.mark.root


def ip(commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=commands, check=True, text=True)


def mtus(link: str) -> set[int]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink:
        return rtnetlink.route_mtus(netlink, socket.if_nametoindex(link))


@in_fresh_namespace
@pytest.mark.parametrize("option", [rtnetlink._NETLINK_GET_STRICT_CHK, 99], ids=["by the kernel", "by us"])
def test_only_the_mtus_of_a_links_own_routes_are_found(option: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many routes besides, so that the kernel answers in several messages."""
    monkeypatch.setattr(rtnetlink, "_NETLINK_GET_STRICT_CHK", option)
    ip("""
        tuntap add wg0 mode tun
        tuntap add wg1 mode tun
        link set wg0 up
        link set wg1 up
        address add 10.8.0.1/24 dev wg0
    """)
    assert mtus("wg0") == set()
    ip("\n".join(f"route add 10.{i >> 8}.{i & 255}.0/24 dev wg{i & 1} table 7" for i in range(3000)))
    ip("""
        route add 192.0.2.1 dev wg0 mtu 1299
        route add 192.0.2.2 dev wg0 mtu lock 1298
        route add 192.0.2.3 dev wg0 advmss 1200 mtu 1297 table 51820
        route add 2001:db8::/64 dev wg0 mtu 1301
        route add default dev wg0 mtu 9000 table 51821
        route add 192.0.2.4 dev wg1 mtu 1111
        route add 2001:db8:1::/64 dev wg1 mtu 1291
    """)
    assert mtus("wg0") == {1297, 1298, 1299, 1301, 9000}
    assert mtus("wg1") == {1111, 1291}
    ip("route add 192.0.2.5 mtu 1290 nexthop dev wg0 nexthop dev wg1")
    assert 1290 in mtus("wg0") & mtus("wg1")
    ip("route del 192.0.2.1 dev wg0 mtu 1299\nroute replace 192.0.2.2 dev wg0")
    assert mtus("wg0") == {1290, 1297, 1301, 9000}
    ip("link set wg1 down")
    assert mtus("wg1") <= {1290}  # the route by both stays


@in_fresh_namespace
def test_no_mtus_are_found_for_a_link_that_is_gone() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink:
        assert rtnetlink.route_mtus(netlink, 4711) == set()
    assert rtnetlink.route_mtus(netlink, 1) == set()
