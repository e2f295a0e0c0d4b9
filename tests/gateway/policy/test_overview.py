"""What a person is told about devices and rules; what may be reached is compared with what decides."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.gateway.policy.destinations import Destination, includes
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.overview import Standing, reached, standing
from wgpy.gateway.policy.people import Device
from wgpy.gateway.policy.rules import Rule, decide
from wgpy.keys import PrivateKey

ENDPOINT = Endpoint(host="vpn.example.org", pools=(ip_network("10.99.0.0/24"),), session_max=100)
DEVICE = Device(name="phone", user="alice", public_key=PrivateKey.generate().public_key, addresses=())


@pytest.mark.parametrize(
    ("started_at", "expected"), [(None, (Standing.READY, None)), (950.0, (Standing.CONNECTED, 50.0))]
)
def test_without_sign_in_a_session_lasts_from_its_beginning(
    started_at: float | None, expected: tuple[Standing, float | None]
) -> None:
    assert standing(DEVICE, ENDPOINT, started_at, 1000.0) == expected


@pytest.mark.parametrize(
    ("signed_in_at", "started_at", "expected"),
    [
        (None, None, (Standing.SIGNED_OUT, None)),
        (899.0, None, (Standing.SIGNED_OUT, None)),
        (930.0, None, (Standing.READY, 30.0)),
        (930.0, 990.0, (Standing.CONNECTED, 30.0)),
        (900.0, 990.0, (Standing.SIGNED_OUT, None)),
        (None, 990.0, (Standing.SIGNED_OUT, None)),
    ],
)
def test_with_sign_in_a_session_lasts_from_then(
    signed_in_at: float | None, started_at: float | None, expected: tuple[Standing, float | None]
) -> None:
    device = replace(DEVICE, signed_in_at=signed_in_at)
    assert standing(device, replace(ENDPOINT, sign_in=True), started_at, 1000.0) == expected
    assert standing(replace(device, certificate="revoked"), ENDPOINT, started_at, 1000.0) == (Standing.REFUSED, None)
    assert standing(replace(device, enabled=False), ENDPOINT, started_at, 1000.0) == (Standing.DISABLED, None)


prefixes = st.sampled_from(["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3", "10.2.0.0/16", "::/0"])
ports = st.sampled_from(["", ":443/tcp", ":53", "/icmp"])
destinations = st.sampled_from(["10.1.2.3", "10.1.2.4", "10.1.9.9", "10.2.0.1", "192.0.2.1", "2001:db8::1"])
people = st.sampled_from([frozenset[str](), frozenset({"a"}), frozenset({"b"}), frozenset({"a", "b"})])


@st.composite
def rule_sets(draw: st.DrawFn) -> list[Rule]:
    made = []
    for number in range(draw(st.integers(0, 6))):
        prefix, which, groups = draw(prefixes), draw(ports), draw(people)
        text = f"[{prefix}]{which}" if ":" in prefix and which else prefix + which
        rule = Rule(name=f"r{number}", destination=Destination.parse(text), groups=groups, everyone=not groups)
        made.append(rule)
    return made


@given(rule_sets(), people, destinations)
def test_what_a_person_is_told_is_what_decides(rules: list[Rule], groups: frozenset[str], to: str) -> None:
    address = ip_address(to)
    for protocol, port in (("tcp", 443), ("udp", 53), ("tcp", 22), ("icmp", 0), ("gre", 0)):
        told = any(
            address in each.network
            and not any(address in exception for exception in each.exceptions)
            and includes(each.ports, protocol, port)
            for each in reached(rules, groups)
        )
        assert told == decide(rules, groups, address, protocol, port).allowed


def test_exceptions_are_named_once_where_they_are_decided() -> None:
    def rule(name: str, text: str, *groups: str) -> Rule:
        return Rule(name=name, destination=Destination.parse(text), groups=frozenset(groups))

    rules = [
        rule("all", "10.0.0.0/8", "staff"),
        rule("ops", "10.1.0.0/16", "ops"),
        rule("deep", "10.1.2.0/24", "ops"),
        rule("web", "10.2.0.0/16:443/tcp", "staff"),
        rule("same", "10.3.0.0/16", "staff"),
    ]
    found = {str(each.network): [*map(str, each.exceptions)] for each in reached(rules, {"staff"})}
    assert found == {"10.0.0.0/8": ["10.1.0.0/16", "10.2.0.0/16"], "10.2.0.0/16": [], "10.3.0.0/16": []}
