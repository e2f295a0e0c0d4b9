"""What the gateway finds on the host that it runs on."""

from __future__ import annotations

import subprocess
from ipaddress import ip_network

import pytest

from tests.support.netns import in_fresh_namespace
from wgpy.gateway.enforcement.dataplane import DataPlane

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


@pytest.mark.root
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
