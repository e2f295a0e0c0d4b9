"""What routes, marks and bound sockets do to a tunnel: more of the kernel's netns.sh, by its numbers.

As in `test_netns_scenarios`, the program under test is on the left.
"""

from __future__ import annotations

import re

import pytest

from tests.interop.conftest import Cable
from tests.interop.test_netns_scenarios import Link, answered
from tests.support.kernel_peer import CARD
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import Side, Wgpy

pytestmark = pytest.mark.root


@pytest.fixture
def cable(cable_to_program: Cable) -> Cable:
    return cable_to_program


@pytest.mark.scenario("kernel send.c, calculate_skb_padding", "kernel netns.sh, 3")
def test_3_route_mtus_work_with_the_padding(cable: Cable) -> None:
    """The padding of a packet does not exceed the MTU of its route, which may be lower than the interface's.

    1,297 bytes pass by a route that takes 1,299 bytes into an interface that takes 1,300, while datagrams that are
    one byte longer are lost.
    """
    link = Link(cable, mtu=1300)
    link.ping("-c", "1")
    run = link.left.namespace.run
    run("nft", "add table inet lost; add chain inet lost output { type filter hook output priority 0; }; "
               "add chain inet lost input { type filter hook input priority 0; }; "
               "add rule inet lost output ip length 1360 counter drop; "
               "add rule inet lost input ip length 1360 counter drop")  # fmt: skip

    def lost(chain: str) -> int:
        return int(run("nft", "list", "chain", "inet", "lost", chain).partition("counter packets ")[2].split()[0])

    ways = ((link.left, link.right), (link.right, link.left))

    def answers() -> list[bool]:
        return [answered(here, "-W", "1", "-s", "1269", there.inner4) for here, there in ways]

    for here, there in ways:
        here.namespace.run("ip", "route", "add", f"{there.inner4}/32", "dev", here.name, "mtu", "1299")
    came = answers()
    assert lost("output") == 0
    assert came == [True, True]
    for here, there in ways:
        here.namespace.run("ip", "route", "delete", f"{there.inner4}/32", "dev", here.name)
    assert answers() == [False, False]
    assert lost("output")


@pytest.mark.scenario("kernel netns.sh, 10")
def test_10_a_socket_bound_to_the_tunnel_and_a_mark_that_changes_the_route(cable: Cable) -> None:
    """A socket that is bound to the interface, as of `ping -I`, is served.

    So it is when a firewall sets a mark on the way out, for which the kernel looks for another route.
    """
    link = Link(cable)
    left = link.left.namespace
    for address in (link.right.inner4, link.right.inner6):
        left.run("ping", "-c", "1", "-W", "5", "-I", link.left.name, address)
    left.run("nft", "add table inet m; add chain inet m out { type route hook output priority mangle; }; "
             "add rule inet m out meta mark set 1")  # fmt: skip
    for address in (link.right.inner4, link.right.inner6):
        left.run("ping", "-c", "1", "-W", "5", address)
        left.run("ping", "-c", "1", "-W", "5", "-I", link.left.name, address)


@pytest.mark.scenario("kernel netns.sh, 11")
def test_11_a_peer_inside_anothers_tunnel_and_one_whose_endpoint_is_inside_its_own(cable: Cable) -> None:
    """A peer can be reached through another peer of the same interface.

    One that is to be reached through itself gets less than 70,000 bytes for a hundred pings, and does no harm.
    """
    link = Link(cable)
    left, right = link.left, link.right
    onion = Side(right.namespace, right.inner4, "10.7.0.2", "fd07::2", port=5)
    section = f"[Peer]\nPublicKey = {left.public_key.base64()}\nAllowedIPs = 10.7.0.1/32"
    core = cable.open(onion, section)
    left.namespace.run("ip", "address", "add", "10.7.0.1/24", "dev", left.name)
    key = onion.public_key.base64()
    peer = ("wg", "set", left.name, "peer", key)
    left.namespace.run(*peer, "allowed-ips", "10.7.0.2/32", "endpoint", onion.endpoint)
    left.namespace.run("ping", "-c", "1", "-W", "5", "10.7.0.2")
    core.close()
    left.namespace.run(*peer, "endpoint", "10.7.0.2:5")
    left.namespace.run("ping", "-c", "100", "-i", "0.01", "-W", "1", "10.7.0.2", check=False)
    sent = {line.split()[0]: int(line.split()[2]) for line in link.wg(left, "transfer").splitlines()}
    assert sent[key] < 70_000
    link.ping("-c", "1")
    left.namespace.run(*peer, "remove")


@pytest.mark.scenario("wg(8): fwmark", "kernel netns.sh, 12")
def test_12_a_mark_keeps_the_tunnels_own_packets_out_of_it(cable: Cable) -> None:
    """With wg-quick's policy routing the firewall mark keeps the program's own datagrams out of the tunnel.

    Beside a default route of IPv6, a hundred pings of each family are answered.
    """
    link = Link(cable)
    link.ping("-c", "1")
    left, right, run = link.left, link.right, link.left.namespace.run
    far = ("192.168.99.7/32", "abab::1111/128")
    for address in far:
        right.namespace.run("ip", "address", "add", address, "dev", right.name)
    run("ip", "-6", "route", "add", "default", "via", "2001:db8::2")
    peer = ("peer", right.public_key.base64(), "allowed-ips", ",".join(far))
    run("wg", "set", left.name, "fwmark", "51820", *peer)
    for family in ("-4", "-6"):
        run("ip", family, "route", "add", "default", "dev", left.name, "table", "51820")
        run("ip", family, "rule", "add", "not", "fwmark", "51820", "table", "51820")
        run("ip", family, "rule", "add", "table", "main", "suppress_prefixlength", "0")
    run("sysctl", "-q", "net.ipv4.conf.all.rp_filter=0", f"net.ipv4.conf.{CARD}.rp_filter=0")
    for address in far:
        said = run("ping", "-c", "100", "-f", "-W", "5", address.partition("/")[0])
        assert "100 received" in said
    assert link.wg(left, "endpoints").split()[1] == right.endpoint


@pytest.mark.scenario("paper, 2: cryptokey routing", "kernel device.c, wg_xmit", "kernel netns.sh, 13")
@pytest.mark.parametrize("version", [4, 6])
def test_13_a_packet_that_no_peer_takes_is_answered_with_an_icmp_error(cable: Cable, version: int) -> None:
    """A host whose packets are routed into the tunnel (for IPv4 by a NAT) gets an ICMP error if no peer takes them.

    The kernel's error comes from the gateway; wgpy's from the address that could not be reached.
    """
    link = Link(cable)
    gateway, run = link.left, link.left.namespace.run
    with Namespace() as host:
        veth_pair(
            host, gateway.namespace, (["10.0.0.1/24", "fd00::1/64"], ["10.0.0.100/24", "fd00::100/64"]), name="inside"
        )
        for family, via in (("-4", "10.0.0.100"), ("-6", "fd00::100")):
            host.run("ip", family, "route", "add", "default", "via", via)
        run("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        run("nft", "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }; "
            f"add rule ip nat out oifname {gateway.name} masquerade")  # fmt: skip
        address = link.right.inner4 if version == 4 else link.right.inner6
        if version == 4:
            host.run("ping", "-c", "1", "-W", "5", address)
        run("wg", "set", gateway.name, "peer", link.right.public_key.base64(), "remove")
        said = host.run("ping", "-c", "1", "-W", "5", address, check=False)
        unreachable = "Destination Host Unreachable" if version == 4 else "Destination unreachable: Address unreachable"
        teller = address if isinstance(link.ours, Wgpy) else "[0-9a-f.:]+"
        assert re.search(f"From {teller} icmp_seq=1 {unreachable}", said)
