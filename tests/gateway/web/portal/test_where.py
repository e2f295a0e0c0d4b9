"""Where clients find the pages, as the options of `wgpy gateway run` say."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.web.run import Https


@pytest.mark.parametrize(
    ("address", "proxy", "url", "expected"),
    [
        ("[::]:443", None, "https://vpn.example.org", (443, None)),
        ("0.0.0.0:8443", None, "https://vpn.example.org", (8443, "0.0.0.0")),
        ("192.0.2.1:443", None, "https://vpn.example.org", (443, "192.0.2.1")),
        ("[2001:db8::1]:443", None, "https://vpn.example.org", (443, "2001:db8::1")),
        ("vpn.example.org:443", None, "https://vpn.example.org", (443, None)),
        ("127.0.0.1:8080", "127.0.0.1", "https://vpn.example.org", (443, None)),
        ("127.0.0.1:8080", "::1", "https://vpn.example.org:8443", (8443, None)),
        ("10.0.0.1:8080", "10.0.0.9", "https://vpn.example.org", (443, "10.0.0.9")),
    ],
)
def test_the_portal_is_where_clients_find_it(
    address: str, proxy: str | None, url: str, expected: tuple[int, str | None]
) -> None:
    endpoint = Endpoint(host="vpn.example.org", pools=(ip_network("10.99.0.0/24"),), url=url)
    found = Https(address=address, proxy=ip_address(proxy) if proxy else None).portal(endpoint)
    assert (found.protocol, found.port, found.address and str(found.address)) == ("tcp", *expected)
