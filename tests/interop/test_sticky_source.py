"""Answers leave from the address spoken to, until it is gone or a better route leads elsewhere: netns.sh, 14."""

from __future__ import annotations

import pytest

from tests.interop.conftest import OUTER6, Cable
from tests.support.netns import veth_pair
from tests.support.peers import Wgpy, WireguardGo, peer_section

pytestmark = pytest.mark.root


def bring_up(cable: Cable) -> tuple[Wgpy, WireguardGo]:
    """wgpy left, which does not know where the other is; wireguard-go right, which begins."""
    ours = Wgpy(cable.left, cable.directory, peer_section(cable.right, endpoint=None))
    cable.cleanup.callback(ours.close)
    theirs = WireguardGo(cable.right, peer_section(cable.left))
    cable.cleanup.callback(theirs.close)
    return ours, theirs


def spoken_to_at(cable: Cable, theirs: WireguardGo, endpoint: str) -> None:
    """They speak to `endpoint`, and are answered from there."""
    cable.right.namespace.run(
        *("wg", "set", theirs.side.name, "peer", cable.left.public_key.base64(), "endpoint", endpoint)
    )
    for address in (cable.left.inner4, cable.left.inner6):
        cable.right.namespace.run("ping", "-c", "2", "-i", "0.2", "-W", "3", address)
    assert theirs.wg("endpoints").split()[1] == endpoint


def test_each_of_several_addresses_answers_for_itself(cable: Cable) -> None:
    left = cable.left.namespace
    left.run("ip", "address", "add", "192.0.2.11/24", "dev", "veth0")
    left.run("ip", "address", "add", "2001:db8::11/64", "dev", "veth0", "nodad")
    _, theirs = bring_up(cable)
    for host in ("192.0.2.11", "192.0.2.1", f"[{OUTER6[0]}]", "[2001:db8::11]"):
        spoken_to_at(cable, theirs, f"{host}:51820")


@pytest.mark.parametrize("version", [4, 6])
def test_an_address_of_another_interface_answers_for_itself(cable: Cable, version: int) -> None:
    address, length, via = ("10.50.0.1", 32, "192.0.2.1") if version == 4 else ("fd50::1", 128, OUTER6[0])
    cable.left.namespace.run("ip", "address", "add", f"{address}/{length}", "dev", "lo")
    cable.right.namespace.run("ip", f"-{version}", "route", "add", address, "via", via)
    _, theirs = bring_up(cable)
    spoken_to_at(cable, theirs, f"{address}:51820" if version == 4 else f"[{address}]:51820")


@pytest.mark.parametrize("version", [4, 6])
def test_an_address_that_is_replaced_does_not_stick(cable: Cable, version: int) -> None:
    old, new, length = ("192.0.2.11", "192.0.2.12", 24) if version == 4 else ("2001:db8::11", "2001:db8::12", 64)
    shown = "{}:51820" if version == 4 else "[{}]:51820"
    nodad = () if version == 4 else ("nodad",)
    left = cable.left.namespace
    left.run("ip", "address", "add", f"{old}/{length}", "dev", "veth0", *nodad)
    _, theirs = bring_up(cable)
    spoken_to_at(cable, theirs, shown.format(old))
    left.run("ip", "address", "delete", f"{old}/{length}", "dev", "veth0")
    left.run("ip", "address", "delete", f"{cable.left.outer}/24" if version == 4 else f"{OUTER6[0]}/64", "dev", "veth0")
    left.run("ip", "address", "add", f"{new}/{length}", "dev", "veth0", *nodad)
    left.run("ping", "-c", "1", "-W", "1", cable.right.inner4)
    assert theirs.wg("endpoints").split()[1] == shown.format(new)


@pytest.mark.parametrize("version", [4, 6])
def test_a_better_route_takes_a_session_over(cable: Cable, version: int) -> None:
    addresses = (("198.51.100.1/24", "2001:db8:1::1/64"), ("198.51.100.2/24", "2001:db8:1::2/64"))
    veth_pair(cable.left.namespace, cable.right.namespace, addresses, name="veth1")
    if version == 6:
        cable.over_ipv6()
    _, theirs = bring_up(cable)
    spoken_to_at(cable, theirs, cable.left.endpoint)
    host, via = ("192.0.2.2", "198.51.100.2") if version == 4 else (OUTER6[1], "2001:db8:1::2")
    cable.left.namespace.run("ip", f"-{version}", "route", "add", host, "via", via, "dev", "veth1")
    cable.left.namespace.run("ping", "-c", "2", "-i", "0.2", "-W", "3", cable.right.inner4)
    assert theirs.wg("endpoints").split()[1] in ("198.51.100.1:51820", "[2001:db8:1::1]:51820")
