"""Answers leave from the address spoken to, until it is gone or another interface leads to the peer: netns.sh, 14.

The program under test is on the left, and does not know where the other end is, which begins.
"""

from __future__ import annotations

import pytest

from tests.interop.conftest import OUTER6, Cable
from tests.interop.test_netns_scenarios import Link
from tests.support.netns import veth_pair

pytestmark = pytest.mark.root


@pytest.fixture
def cable(cable_to_program: Cable) -> Cable:
    return cable_to_program


def bring_up(cable: Cable) -> Link:
    return Link(cable, answering=True)


def spoken_to_at(link: Link, endpoint: str) -> None:
    """They speak to `endpoint`, and are answered from there."""
    left, right = link.left, link.right
    right.namespace.run("wg", "set", right.name, "peer", left.public_key.base64(), "endpoint", endpoint)
    for address in (left.inner4, left.inner6):
        right.namespace.run("ping", "-c", "2", "-i", "0.2", "-W", "5", address)
    assert answered_from(link) == endpoint


def answered_from(link: Link) -> str:
    """Where the right end takes the left to be."""
    return link.wg(link.right, "endpoints").split()[1]


def second_address(cable: Cable, version: int) -> str:
    """Give the left end one more address on the cable; returns it as an endpoint has it."""
    left = cable.left.namespace
    if version == 4:
        left.run("ip", "address", "add", "192.0.2.11/24", "dev", "veth0")
        return "192.0.2.11"
    cable.over_ipv6()
    left.run("ip", "address", "add", "2001:db8::11/64", "dev", "veth0", "nodad")
    return "[2001:db8::11]"


@pytest.mark.scenario("kernel socket.c: the endpoint's source address", "kernel netns.sh, 14")
@pytest.mark.parametrize("version", [4, 6])
def test_14_the_answer_comes_from_the_address_that_was_spoken_to(cable: Cable, version: int) -> None:
    """A host with several addresses answers from the one that was spoken to.

    Each tunnel speaks one IP version: wireguard-go 0.0.20231211 cuts an IPv6 address to four bytes after IPv4.
    """
    second = second_address(cable, version)
    link = bring_up(cable)
    for endpoint in (f"{second}:51820", cable.left.endpoint, f"{second}:51820"):
        spoken_to_at(link, endpoint)


@pytest.mark.scenario("kernel socket.c: the endpoint's source address", "kernel netns.sh, 14")
@pytest.mark.parametrize("version", [4, 6])
def test_14_a_change_that_does_not_concern_a_peer_keeps_its_address(cable: Cable, version: int) -> None:
    """A link that comes and goes with its addresses and routes, as a container's does, moves no session."""
    left = cable.left.namespace
    second = second_address(cable, version)
    link = bring_up(cable)
    for endpoint in (f"{second}:51820", cable.left.endpoint):  # one of them is not the routes' choice
        spoken_to_at(link, endpoint)
        left.run("ip", "link", "add", "other", "type", "veth", "peer", "name", "others")
        left.run("ip", "link", "set", "other", "up")
        left.run("ip", "link", "set", "others", "up")
        left.run("ip", "address", "add", "198.51.100.1/24", "dev", "other")
        left.run("ip", "address", "add", "2001:db8:1::1/64", "dev", "other", "nodad")
        left.run("ip", "route", "add", "203.0.113.0/24", "dev", "other")
        left.run("ip", "link", "delete", "other")
        left.run("ping", "-c", "4", "-i", "0.2", "-W", "5", cable.right.inner4)  # the daemon notices meanwhile
        assert answered_from(link) == endpoint


@pytest.mark.scenario("kernel socket.c: the endpoint's source address", "kernel netns.sh, 14")
@pytest.mark.parametrize("version", [4, 6])
def test_14_an_address_of_another_interface_is_answered_from(cable: Cable, version: int) -> None:
    """So it does when that address belongs to another interface than the datagram came in by."""
    address, length, via = ("10.50.0.1", 32, "192.0.2.1") if version == 4 else ("fd50::1", 128, OUTER6[0])
    on_lo = (f"{address}/{length}", "dev", "lo")
    cable.left.namespace.run("ip", "address", "add", *on_lo)
    cable.cleanup.callback(cable.left.namespace.run, "ip", "address", "delete", *on_lo)
    cable.right.namespace.run("ip", f"-{version}", "route", "add", address, "via", via)
    link = bring_up(cable)
    spoken_to_at(link, f"{address}:51820" if version == 4 else f"[{address}]:51820")


@pytest.mark.scenario("kernel socket.c: the endpoint's source address", "kernel netns.sh, 14")
@pytest.mark.parametrize("version", [4, 6])
def test_14_an_address_that_is_replaced_does_not_stick(cable: Cable, version: int) -> None:
    """When the address that was spoken to is gone, the next packet leaves from the address that replaced it."""
    old, new, length = ("192.0.2.11", "192.0.2.12", 24) if version == 4 else ("2001:db8::11", "2001:db8::12", 64)
    shown = "{}:51820" if version == 4 else "[{}]:51820"
    nodad = () if version == 4 else ("nodad",)
    left = cable.left.namespace
    left.run("ip", "address", "add", f"{old}/{length}", "dev", "veth0", *nodad)
    link = bring_up(cable)
    spoken_to_at(link, shown.format(old))
    left.run("ip", "address", "delete", f"{old}/{length}", "dev", "veth0")
    left.run("ip", "address", "delete", f"{cable.left.outer}/24" if version == 4 else f"{OUTER6[0]}/64", "dev", "veth0")
    left.run("ip", "address", "add", f"{new}/{length}", "dev", "veth0", *nodad)
    left.run("ping", "-c", "1", "-W", "5", cable.right.inner4)
    assert answered_from(link) == shown.format(new)


@pytest.mark.scenario("kernel socket.c: the endpoint's source address", "kernel netns.sh, 14")
@pytest.mark.parametrize("version", [4, 6])
def test_14_a_session_moves_to_a_better_route(cable: Cable, program: str, version: int) -> None:
    """When a better route leads by another interface, a session moves to it, with the source address of that route.

    A kernel in a virtual machine has one cable, so the better route leads by a second network on it. The source then
    stays: the kernel (socket.c, send4) gives it up for another interface, not for another gateway.
    """
    addresses = (("198.51.100.1/24", "2001:db8:1::1/64"), ("198.51.100.2/24", "2001:db8:1::2/64"))
    if program == "kernel":
        second = "veth0"
        for side, own in zip((cable.left, cable.right), addresses, strict=True):
            side.namespace.run("ip", "address", "add", own[0], "dev", second)
            side.namespace.run("ip", "address", "add", own[1], "dev", second, "nodad")
    else:
        second = "veth1"
        veth_pair(cable.left.namespace, cable.right.namespace, addresses, name=second)
    if version == 6:
        cable.over_ipv6()
    link = bring_up(cable)
    spoken_to_at(link, cable.left.endpoint)
    host, via, source = ("192.0.2.2", "198.51.100.2", "198.51.100.1")
    if version == 6:
        host, via, source = (OUTER6[1], "2001:db8:1::2", "2001:db8:1::1")
    route = ("route", "add", host, "via", via, "dev", second, "src", source)
    cable.left.namespace.run("ip", f"-{version}", *route)
    cable.left.namespace.run("ping", "-c", "2", "-i", "0.2", "-W", "5", cable.right.inner4)
    moved = f"{source}:51820" if version == 4 else f"[{source}]:51820"
    assert answered_from(link) == (cable.left.endpoint if program == "kernel" else moved)
