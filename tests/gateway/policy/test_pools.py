"""Addresses from pools, and what a pool may not overlap."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from wgpy.errors import ConfigError
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.pools import Released, assign, check, own_address
from wgpy.gateway.policy.routes import Route
from wgpy.gateway.policy.routes import check as check_routes
from wgpy.keys import PublicKey

SMALL = (ip_network("10.99.0.0/29"),)  # .1 is the gateway's, .2 to .6 are clients'
KEYS = [PublicKey(bytes([n]) * 32) for n in range(10)]


def held(*numbers: int) -> set[Address]:
    return {ip_address(f"10.99.0.{n}") for n in numbers}


def released(number: int, at: float) -> Released:
    return Released(address=ip_address(f"10.99.0.{number}"), public_key=KEYS[number], at=at)


def test_devices_get_the_lowest_free_address_after_the_gateways() -> None:
    assert own_address(SMALL[0]) == ip_address("10.99.0.1")
    assert assign(SMALL, held(), [], KEYS[0]) == ip_address("10.99.0.2")
    assert assign(SMALL, held(2, 3, 5), [], KEYS[0]) == ip_address("10.99.0.4")


def test_a_key_gets_its_former_address_again() -> None:
    assert assign(SMALL, held(2), [released(5, 100)], KEYS[5]) == ip_address("10.99.0.5")


def test_others_get_a_former_address_only_when_there_is_no_new_one_and_then_the_longest_unused() -> None:
    former = [released(4, 200), released(5, 100)]
    assert assign(SMALL, held(2, 3), former, KEYS[0]) == ip_address("10.99.0.6")
    assert assign(SMALL, held(2, 3, 6), former, KEYS[0]) == ip_address("10.99.0.5")


def test_a_full_pool_names_itself_and_the_remedy_and_grows() -> None:
    full = held(2, 3, 4, 5, 6)
    with pytest.raises(ConfigError, match=r"pool 10.99.0.0/29: every address is taken; add a pool"):
        assign(SMALL, full, [], KEYS[0])
    assert assign((ip_network("10.99.0.0/28"),), full, [], KEYS[0]) == ip_address("10.99.0.7")
    assert assign((*SMALL, ip_network("10.98.0.0/24")), full, [], KEYS[0]) == ip_address("10.98.0.2")


def test_a_pool_of_ipv6_is_not_enumerated() -> None:
    pool = (ip_network("fd00:99::/64"),)
    assert assign(pool, held(), [], KEYS[0]) == ip_address("fd00:99::2")


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("10.99.0.1", "the gateway's own"),
        ("10.99.0.7", "the network's or the gateway's own"),
        ("10.99.0.2", "another device has it"),
        ("10.98.0.1", "not in a pool (10.99.0.0/29)"),
        ("fd00::1", "not in a pool"),
    ],
)
def test_a_static_address_must_be_available(wanted: str, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        assign(SMALL, held(2), [], KEYS[0], ip_address(wanted))
    assert why in str(error.value)
    assert assign(SMALL, held(2), [released(3, 1)], KEYS[0], ip_address("10.99.0.3")) == ip_address("10.99.0.3")


def test_pools_may_not_overlap_one_another_or_local_networks() -> None:
    pool = ip_network("10.99.0.0/24")
    check([pool, ip_network("10.99.1.0/24"), ip_network("fd00::/64")], {"route": [ip_network("0.0.0.0/0")]})
    with pytest.raises(ConfigError, match=r"pool 10.99.0.0/24: overlaps pool 10.99.0.0/25"):
        check([pool, ip_network("10.99.0.0/25")], {})
    with pytest.raises(ConfigError, match=r"overlaps the network of eth0 10.0.0.0/8"):
        check([pool], {"the network of eth0": [ip_network("10.0.0.0/8")]})
    with pytest.raises(ConfigError, match="too small"):
        check([ip_network("10.99.0.0/31")], {})


def test_an_endpoint_in_its_own_pool_or_route_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pool 10.99.0.0/24: overlaps the endpoint's own address 10.99.0.9/32"):
        Endpoint(host="10.99.0.9", pools=(ip_network("10.99.0.0/24"),))
    endpoint = Endpoint(host="198.51.100.1", pools=(ip_network("10.99.0.0/24"),))
    check_routes(endpoint, [Route(network=ip_network("0.0.0.0/0")), Route(network=ip_network("10.0.0.0/16"))])
    with pytest.raises(ConfigError, match=r"route 198.51.0.0/16: contains the endpoint's own address 198.51.100.1"):
        check_routes(endpoint, [Route(network=ip_network("198.51.0.0/16"))])
    with pytest.raises(ConfigError, match=r"pool 10.99.0.0/24: overlaps route 10.0.0.0/8"):
        check_routes(endpoint, [Route(network=ip_network("10.0.0.0/8"))])


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"host": "vpn.example.org:51820"}, "host 'vpn.example.org:51820': expected a name"),
        ({"host": ""}, "expected a name"),
        ({"port": 0}, "ports go from 1"),
        ({"pools": ()}, "pool: none given"),
        ({"interface": "a" * 16}, "at most 15 letters"),
        ({"interface": ".."}, "at most 15 letters"),
        ({"mtu": 576}, "1280 to 65535"),
        ({"banner": "x" * 1401}, "1400 is the most"),
        ({"session_max": 0}, "28800 for 8 hours"),
        ({"idle_max": -1}, "0 for no limit"),
        ({"search": ("a b",)}, "corp.example"),
        ({"data_plane": "bsd"}, "one of auto, kernel, wgpy"),
        ({"handler": "bin/handler"}, "a program's absolute path"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(changed: dict[str, object], why: str) -> None:
    settings: dict[str, object] = {"host": "vpn.example.org", "pools": (ip_network("10.99.0.0/24"),)}
    with pytest.raises(ConfigError) as error:
        Endpoint(**{**settings, **changed})  # type: ignore[arg-type]
    assert why in str(error.value)


def test_a_route_hides_clients_behind_an_address_of_its_own_version() -> None:
    network = ip_network("10.0.0.0/16")
    assert Route(network=network, snat="10.0.0.4").snat == "10.0.0.4"
    with pytest.raises(ConfigError, match="another IP version"):
        Route(network=network, snat="fd00::1")
    with pytest.raises(ConfigError, match="neither masquerade, none nor an address"):
        Route(network=network, snat="yes")
