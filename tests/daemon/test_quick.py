"""The part of `up` and `apply` that can be tested without a kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from wgpy.config.values import InterfaceConfig, PeerConfig
from wgpy.daemon.quick import MAX_ROUTE_REQUESTS, Quick
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey


class Routes:
    """A kernel that routes every address into the interface."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def leads_into(self, address: str, name: str, mark: int = 0) -> bool:
        self.asked.append(address)
        return True

    def path_mtu(self, address: str) -> int:
        self.asked.append(address)
        return 1400


def quick_of(networks: list[IPv4Network | IPv6Network], say: Callable[[str], None] = lambda _: None) -> Quick:
    config = InterfaceConfig(peers=(PeerConfig(public_key=PublicKey(b"p" * 32), allowed_ips=tuple(networks)),))
    nothing: Any = lambda *_: None  # noqa: E731
    return Quick("wg0", config, say=say, set_fwmark=nothing, close_interface=nothing, save=nothing)


def warned(networks: list[IPv4Network | IPv6Network], endpoints: list[Endpoint]) -> tuple[list[str], list[str], int]:
    """The endpoints the kernel was asked for, the steps that were printed, and the number of calls."""
    said: list[str] = []
    quick = quick_of(networks, said.append)
    routes: Any = Routes()
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        quick._warn_of_loops(routes, endpoints)
    finally:
        sys.setprofile(None)
    return routes.asked, said, calls


def test_an_endpoint_within_the_allowed_ips_gets_a_warning() -> None:
    networks: list[IPv4Network | IPv6Network] = [
        IPv4Network("10.0.0.0/8"),
        IPv6Network("2001:db8::/32"),
        IPv6Network("fd00::1/128"),
    ]
    inside = ["10.1.2.3", "2001:db8::7", "fd00::1"]
    outside = ["11.1.2.3", "2001:db9::7", "fd00::2", "0.0.0.10"]
    asked, said, _ = warned(networks, [Endpoint(host, 51820) for host in (*inside, *outside)])
    assert asked == inside
    assert ["is routed into wg0 itself" in line for line in said] == [True] * 3
    asked, _, _ = warned([IPv6Network("::/0")], [Endpoint("2001:db8::7", 51820), Endpoint("10.1.2.3", 51820)])
    assert asked == ["2001:db8::7"]


def test_the_number_of_routes_asked_for_is_bounded() -> None:
    """10,000 clients whose endpoints are all in 0.0.0.0/0: a request for each once took many seconds."""
    networks: list[IPv4Network | IPv6Network] = [IPv4Network("0.0.0.0/0")]
    endpoints = [
        Endpoint(str(IPv4Address(number)), port) for number in range(1 << 24, (1 << 24) + 3000) for port in (1, 2)
    ]
    asked, said, _ = warned(networks, endpoints)
    assert len(said) == len(asked) == len(set(asked)) == MAX_ROUTE_REQUESTS
    routes: Any = Routes()
    assert quick_of([])._suitable_mtu(routes, endpoints) == 1320
    assert len(routes.asked) == len(set(routes.asked)) == MAX_ROUTE_REQUESTS


def test_each_of_many_peers_with_ipv6_endpoints_takes_little_work() -> None:
    """Looking for each of the 129 prefixes of an endpoint once took many seconds for 10,000 peers."""
    count, inside, outside = 1000, int(IPv6Address("fd00::")), int(IPv6Address("2001:db8::"))
    networks: list[IPv4Network | IPv6Network] = [IPv6Network((inside + number, 128)) for number in range(count)]
    asked, said, calls = warned(networks, [Endpoint(str(IPv6Address(outside + i)), 51820) for i in range(count)])
    assert (asked, said) == ([], [])
    assert calls < 100 * count
