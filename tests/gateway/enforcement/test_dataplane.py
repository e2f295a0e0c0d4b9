"""The gateway's interface and its host: which interfaces it takes, and what it finds there."""

from __future__ import annotations

import subprocess
from ipaddress import ip_network

import pytest

from tests.support.netns import in_fresh_namespace
from tests.support.peers import fresh_name
from wgpy.errors import ControlError
from wgpy.gateway.enforcement.dataplane import DataPlane
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.snapshot import Policy
from wgpy.keys import PrivateKey

pytestmark = pytest.mark.root

HOST = """
link add eth0 up type bridge
link add wg0 up type bridge
address add 192.0.2.1/24 dev eth0
address add 2001:db8::1/64 dev eth0 nodad
address add 10.99.0.1/24 dev wg0
address add 198.51.100.1 peer 198.51.100.2 dev eth0
route add default via 192.0.2.254
route add 0.0.0.0/1 via 192.0.2.254
route add 10.0.0.0/16 via 192.0.2.254
route add 10.1.0.0/16 via 192.0.2.254 table 100
route add unreachable 10.0.0.0/8
route add 2001:db8:a::/48 via 2001:db8::2
"""


@in_fresh_namespace
def test_pools_are_compared_with_the_hosts_addresses_and_routes_but_not_the_gateways_own() -> None:
    subprocess.run(["ip", "-batch", "-"], input=HOST, text=True, check=True)
    found = {what: {*map(str, networks)} for what, networks in DataPlane().networks_of_host("wg0").items()}
    found.pop("this host's address on lo,")
    assert found == {
        "this host's address on eth0,": {"192.0.2.1/32", "198.51.100.1/32", "2001:db8::1/128"},
        "this host's route through eth0 to": {
            "192.0.2.0/24",
            "198.51.100.2/32",
            "10.0.0.0/16",
            "10.1.0.0/16",
            "2001:db8::/64",
            "2001:db8:a::/48",
        },
    }
    both = DataPlane().networks_of_host("wg0", "eth0")
    assert both.keys() == {"this host's address on lo,"}
    assert ip_network("10.99.0.1/32") in DataPlane().networks_of_host("eth0")["this host's address on wg0,"]


def policy_for(interface: str) -> Policy:
    endpoint = Endpoint(interface=interface, host="192.0.2.1", pools=(ip_network("10.99.0.0/24"),), data_plane="wgpy")
    return Policy(
        endpoint=endpoint,
        private_key=PrivateKey.generate(),
        users={},
        devices={},
        preshared_keys={},
        routes=(),
        rules=(),
    )


@in_fresh_namespace
def test_an_interface_that_is_not_wireguards_is_neither_taken_nor_removed() -> None:
    for name in ("lan", "lo"):
        if name != "lo":
            subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
        with pytest.raises(ControlError, match=rf"{name}: this interface exists and is not WireGuard's"):
            DataPlane().check(name, PrivateKey.generate())
        DataPlane().down(name)
        subprocess.run(["ip", "link", "show", name], stdout=subprocess.DEVNULL, check=True)


@in_fresh_namespace
def test_only_the_gateways_own_wireguard_interface_is_taken_up_again() -> None:
    plane, policy = DataPlane(), policy_for(fresh_name())
    name = policy.endpoint.interface
    plane.check(name, policy.private_key)
    plane.up(policy)
    try:
        plane.check(name, policy.private_key)
        with pytest.raises(ControlError, match=f"{name}: this interface exists and has another private key"):
            plane.check(name, PrivateKey.generate())
    finally:
        plane.down(name)
