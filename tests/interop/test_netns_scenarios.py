"""The scenarios of the kernel's own test, tools/testing/selftests/wireguard/netns.sh, by its numbers.

On the left the program under test, which is wgpy unless the kit tests another; on the right another wgpy, wireguard-go,
or the kernel. Each docstring says what is expected of the program under test.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.interop.conftest import Cable, kernel_cable, kit_of, packets_kept
from tests.support.kernel_peer import CARD
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import Side, Wgpy, capture, iperf3, peer_section, wait_for
from wgpy.keys import PresharedKey, PrivateKey

pytestmark = pytest.mark.root

# Low-order points and other forms of them, which no private key has.
LOW_ORDER = (
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=",
    "X5yVvKNQjCSx0LFVnIPvWwREXMRYHI6G2CJO3dCfEVc=",
    "7P///////////////////////////////////////38=",
    "7f///////////////////////////////////////38=",
    "7v///////////////////////////////////////38=",
)


class Link:
    """Both ends. With a `client_keepalive` the right one does not know where the left is; `answering`, vice versa."""

    def __init__(
        self,
        cable: Cable,
        psk: PresharedKey | None = None,
        *,
        client_keepalive: int = 0,
        answering: bool = False,
        their_keepalive: int = 0,
        mtu: int = 1420,
    ) -> None:
        self.left, self.right = cable.left, cable.right
        endpoint = None if client_keepalive else ""
        section = peer_section(cable.left, psk=psk, endpoint=endpoint, keepalive=their_keepalive)
        self.theirs = cable.open(cable.right, section, mtu=mtu)
        endpoint = None if answering else ""
        section = peer_section(cable.right, psk=psk, keepalive=client_keepalive, endpoint=endpoint)
        self.ours = cable.open(cable.left, section, mtu=mtu)

    def wg(self, side: Side, *arguments: str) -> str:
        return side.namespace.run("wg", "show", side.name, *arguments).strip()

    def ping(self, *options: str, source: Side | None = None, check: bool = True) -> str:
        here = source or self.left
        there = self.right if here is self.left else self.left
        return here.namespace.run("ping", "-W", "5", *options, there.inner4, check=check)

    def handshaken(self, side: Side) -> bool:
        return not self.wg(side, "latest-handshakes").endswith("\t0")

    def transfer(self, side: Side) -> tuple[int, int]:
        """Received and sent, bytes, as `wg` tells; in the end all that was sent has arrived."""
        _, received, sent = self.wg(side, "transfer").split()
        return int(received), int(sent)


def answered(side: Side, *options: str) -> bool:
    return "1 received" in side.namespace.run("ping", "-c", "1", "-W", "5", *options, check=False)


@pytest.fixture
def cable(cable_to_program: Cable) -> Cable:
    return cable_to_program


@pytest.mark.scenario("paper, 5.4.6: padding", "kernel netns.sh, 1")
def test_1_counters_are_exact(cable: Cable) -> None:
    """Both ends count ten pings of 84 bytes, with a preshared key, to the byte.

    Each is padded to 96 bytes, and has 32 around it; there are an initiation of 148 bytes, a response of 92, and
    perhaps a keepalive. `wg show transfer` counts all UDP payload.
    """
    link = Link(cable, PresharedKey.generate())
    link.ping("-c", "10", "-f")
    received, sent = link.transfer(link.right)
    assert (received, sent) == link.transfer(link.left)[::-1]
    # Who began has sent 148 and ten datagrams; the other 92 and ten, and a keepalive if it had nothing to say at once.
    assert received in (148 + 10 * 128, 148 + 10 * 128 + 32)
    assert sent == 92 + 10 * 128
    assert int(link.wg(link.right, "latest-handshakes").split()[1]) > 0


@pytest.mark.scenario("kernel netns.sh, 2")
@pytest.mark.parametrize(("outer", "below"), [("IPv4", 34816), ("IPv6", 34816), ("IPv4", 1500)])
def test_2_packets_of_34736_bytes(cable: Cable, outer: str, below: int) -> None:
    """With an MTU of 34,736, packets of that size pass both ways, and so do TCP and UDP.

    Over a cable that takes the datagrams whole, and over one that takes 1,500 bytes and fragments them. What the
    kernel's test does at the usual MTU, `tcp_and_udp_both_ways` does.
    """
    if outer == "IPv6":
        cable.over_ipv6()
    cable.set_mtu(below)
    Link(cable, mtu=34736)
    left, right = cable.left, cable.right
    for here, there in ((left, right), (right, left)):
        for address, payload in ((there.inner4, 34708), (there.inner6, 34688)):
            options = ("-M", "do", "-s", str(payload), address)
            assert wait_for(partial(answered, here, *options), 30), "boringtun looks for its MTU now and then"
    for address, way in ((left.inner4, ()), (left.inner6, ("-R",))):
        through = partial(iperf3, right.namespace, left.namespace, address, *way)
        tcp = through("-n", "2M", "-P", "2", "-w", "128K")
        assert tcp["sum_received"]["bytes"] >= 2**20  # when it has sent all, it does not wait for the window
        udp = through("-u", "-b", "20M", "-k", "50", "-l", "30000")
        assert udp["sum"]["packets"] >= 50
        assert udp["sum"]["lost_percent"] < 50  # a busy machine loses some


@pytest.mark.scenario("paper, 2: cryptokey routing", "paper, 2.1: roaming", "kernel netns.sh, 5")
@pytest.mark.parametrize("outer", ["IPv4", "IPv6"])
def test_5_a_packet_with_a_forbidden_source_is_dropped_but_roaming_works(cable: Cable, outer: str) -> None:
    """A packet whose source address belongs to another peer's allowed IPs is dropped.

    It was authenticated all the same, so the endpoint of the peer that sent it is updated.
    """
    if outer == "IPv6":
        cable.over_ipv6()
    link = Link(cable)
    link.ping("-c", "1")
    more_specific = PrivateKey.generate().public_key.base64()
    link.left.namespace.run(
        "wg", "set", link.left.name, "peer", more_specific, "allowed-ips", f"{link.right.inner4}/32"
    )
    link.right.namespace.run("wg", "set", link.right.name, "listen-port", "9997")

    def roamed() -> bool:
        """Some programs need a while after such a change."""
        link.ping("-c", "1", source=link.right, check=False)
        return link.right.endpoint.replace(":51821", ":9997") in link.wg(link.left, "endpoints")

    assert wait_for(roamed)
    assert "100% packet loss" in link.ping("-c", "2", "-i", "0.2", source=link.right, check=False)
    if isinstance(link.ours, Wgpy):
        assert "disallowed_source" in str(link.ours.status()["peers"])


@pytest.mark.scenario("kernel noise.c, wg_noise_set_static_identity_private_key", "kernel netns.sh, 6")
def test_6_a_new_private_key_causes_a_new_handshake_at_once(cable: Cable) -> None:
    """After its private key was changed, the program makes a new handshake under the new key at once."""
    link = Link(cable)
    link.ping("-c", "1")
    key = PrivateKey.generate()
    left, right, new = link.left, link.right, key.public_key.base64()
    stdin = f"wg set {left.name} private-key /dev/stdin <<<'{key.base64()}'"
    left.namespace.run("bash", "-c", stdin)
    right.namespace.run("wg", "set", right.name, "peer", left.public_key.base64(), "remove")
    right.namespace.run("wg", "set", right.name, "peer", new, "allowed-ips", f"{left.inner4}/32,{left.inner6}/128")
    link.ping("-c", "1")
    link.ping("-c", "1", source=right)
    assert link.wg(right, "latest-handshakes").split()[0] == new


@pytest.mark.scenario("kernel netns.sh, 8")
@pytest.mark.parametrize("outer", ["IPv4", "IPv6"])
def test_8_a_routing_loop_ends(cable: Cable, outer: str) -> None:
    """When a peer's endpoint is routed into the tunnel and to that peer, ten pings make less than 70,000 bytes."""
    if outer == "IPv6":
        cable.over_ipv6()
    link = Link(cable)
    link.ping("-c", "1")
    before = link.transfer(link.left)[1]
    left, right, run = link.left, link.right, link.left.namespace.run
    run("wg", "set", left.name, "peer", right.public_key.base64(), "allowed-ips", f"{right.inner4},{right.outer}")
    run("ip", "route", "add", right.outer, "dev", left.name)
    link.ping("-c", "10", "-i", "0.01", "-s", "1300", check=False)
    assert link.transfer(link.left)[1] - before < 70_000
    if isinstance(link.ours, Wgpy):
        assert link.ours.status()["peers"][0]["drops"]["routing_loop"] >= 10


@pytest.mark.scenario("kernel device.c, wg_open", "kernel netns.sh, 15")
def test_15_a_keepalive_is_sent_when_the_link_comes_up(cable: Cable) -> None:
    """A peer with a persistent keepalive gets one when the link comes up or, if there was no key, when one is set."""
    link = Link(cable)
    run, name = link.left.namespace.run, link.left.name
    run("ip", "link", "set", name, "down")
    run("wg", "set", name, "peer", link.right.public_key.base64(), "persistent-keepalive", "25")
    before = link.transfer(link.left)
    run("ip", "link", "set", name, "up")
    assert wait_for(lambda: link.transfer(link.left)[0] > before[0])
    run("wg", "set", name, "private-key", "/dev/null")
    run("ip", "link", "set", name, "down")
    run("ip", "link", "set", name, "up")
    before = link.transfer(link.left)
    run("bash", "-c", f"wg set {name} private-key /dev/stdin <<<'{link.left.key.base64()}'")
    assert wait_for(lambda: link.transfer(link.left)[0] > before[0])


@pytest.mark.scenario("RFC 7748, 6.1: the all-zero secret", "kernel netns.sh, 19")
def test_19_nothing_is_sent_to_a_low_order_key(cable: Cable) -> None:
    """A peer whose public key is a low-order point is never sent anything."""
    link = Link(cable)
    link.ping("-c", "1")
    run, name = link.left.namespace.run, link.left.name
    run("wg", "set", name, "peer", link.right.public_key.base64(), "remove")
    with capture(link.left.namespace, "veth0", "udp") as seen:
        for key in LOW_ORDER:
            run("wg", "set", name, "peer", key, "persistent-keepalive", "1", "endpoint", link.right.endpoint)
        # Two seconds, in which each would have been sent a keepalive, or an initiation.
        assert not wait_for(lambda: any(int(sent) for sent in link.wg(link.left, "transfer").split()[2::3]), 2)
    assert seen == []


@pytest.mark.scenario("kernel netns.sh, 7")
def test_7_a_tunnel_in_a_tunnel(cable: Cable) -> None:
    """A tunnel with an MTU of 1,340 bytes, whose endpoints lie in another one, carries pings, TCP and UDP both ways.

    Each tunnel is made by the same two programs.
    """
    outer = Link(cable)
    outer.ping("-c", "1")
    inner = [
        Side(side.namespace, side.inner4, inner4, inner6, port=6000)
        for side, inner4, inner6 in ((cable.left, "10.7.0.1", "fd07::1"), (cable.right, "10.7.0.2", "fd07::2"))
    ]
    left, right = inner
    Link(replace(cable, left=left, right=right), mtu=1340)
    for here, there in ((left, right), (right, left)):
        for address, payload in ((there.inner4, 1312), (there.inner6, 1292)):
            here.namespace.run("ping", "-c", "3", "-i", "0.1", "-W", "5", "-M", "do", "-s", str(payload), address)
    for address, way in ((left.inner4, ()), (left.inner6, ("-R",))):
        through = partial(iperf3, right.namespace, left.namespace, address, *way)
        assert through("-n", "1M", "-w", "128K")["sum_received"]["bytes"] >= 2**19  # as in 2
        udp = through("-u", "-b", "5M", "-k", "200")
        assert udp["sum"]["packets"] >= 200
        assert udp["sum"]["lost_percent"] < 50


@contextmanager
def behind_nat(client: str, program: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cable]:
    """The two ends, between them a router that hides the client, "ours" or "theirs", and forgets UDP in two seconds.

    On the left is ours, at 192.168.99.1; the router is .254 there, and 192.0.2.1 on the other side.
    """
    with ExitStack() as cleanup:
        ours = cleanup.enter_context(Namespace())
        if program == "kernel":
            cable = cleanup.enter_context(kernel_cable(request.getfixturevalue("kernel_ends"), tmp_path))
            router, other = cable.left.namespace, cable.right.namespace
        else:
            router, other = cleanup.enter_context(Namespace()), cleanup.enter_context(Namespace())
            veth_pair(router, other, (["192.0.2.1/24"], ["192.0.2.2/24"]))
        veth_pair(ours, router, (["192.168.99.1/24"], ["192.168.99.254/24"]), name="inside")
        hidden, gateway, outside = (
            (ours, "192.168.99.254", CARD) if client == "ours" else (other, "192.0.2.1", "inside")
        )
        hidden.run("ip", "route", "add", "default", "via", gateway)
        forgetful = [f"net.netfilter.nf_conntrack_udp_timeout{which}=2" for which in ("", "_stream")]
        router.run("nft", "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }; "
                   f"add rule ip nat out oifname {outside} masquerade")  # fmt: skip
        router.run("sysctl", "-q", "net.ipv4.ip_forward=1", *forgetful)
        kit = kit_of(request.config)
        nat = Cable(
            Side(ours, "192.168.99.1", "10.8.0.1", "fd08::1"),
            Side(other, "192.0.2.2", "10.8.0.2", "fd08::2", port=51821),
            tmp_path,
            cleanup,
            theirs=kit.kind(program),
            ours=kit.tested,
        )
        cleanup.enter_context(packets_kept(request, nat))
        yield nat


@pytest.mark.scenario("paper, 6.5: passive and persistent keepalive", "kernel netns.sh, 9")
def test_9_keepalives_keep_a_client_behind_nat_reachable(
    program: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With a persistent keepalive of a second a client behind a NAT stays in reach of a server that learns its address.

    The router between them forgets UDP after two seconds.
    """
    with behind_nat("ours", program, request, tmp_path) as nat:
        link = Link(nat, client_keepalive=1)
        assert wait_for(lambda: link.handshaken(link.right))
        time.sleep(3)  # longer than the router remembers
        link.ping("-c", "1", source=link.right)
        assert "192.0.2.1:" in link.wg(link.right, "endpoints")


@pytest.mark.scenario("paper, 2.1: roaming", "kernel netns.sh, 9")
def test_9_we_serve_a_client_behind_nat(program: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A server without the client's endpoint learns it from the NAT's address, and reaches the client there."""
    with behind_nat("theirs", program, request, tmp_path) as nat:
        link = Link(nat, answering=True, their_keepalive=1)
        assert wait_for(lambda: link.handshaken(link.left))
        time.sleep(3)
        link.ping("-c", "1")
        assert "192.168.99.254:" in link.wg(link.left, "endpoints")
