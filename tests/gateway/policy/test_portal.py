"""What is open without a session: nothing, unless people sign in at a portal."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.portal import Service, services

ENDPOINT = Endpoint(host="vpn.example.org", pools=(ip_network("10.99.0.0/24"),), dns=(ip_address("10.50.0.53"),))
PORTAL = Service("tcp", 443)


def test_the_portal_and_name_servers_are_open_where_people_sign_in_at_a_portal() -> None:
    signing_in = replace(ENDPOINT, sign_in=True)
    names = [Service(protocol, 53, ip_address("10.50.0.53")) for protocol in ("udp", "tcp")]
    assert services(signing_in, PORTAL) == (PORTAL, *names)
    assert services(signing_in, None) == ()
    assert services(ENDPOINT, PORTAL) == ()
