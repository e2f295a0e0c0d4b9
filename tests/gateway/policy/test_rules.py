"""Which authorization rule decides."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.gateway.scenarios import PLACES, SCENARIOS, THREE, rules_of
from wgpy.errors import ConfigError
from wgpy.gateway.policy.compiler import compiled
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule, decide


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_access_in_the_scenarios_of_aws(scenario: str, version: int, *, backwards: bool) -> None:
    given, expected = SCENARIOS[scenario]
    rules = rules_of(given[::-1] if backwards else given, version)
    places = {name: ip_address(addresses[version == 6]) for name, addresses in PLACES.items()}
    sources = {group: ip_address("10.9.0.1" if version == 4 else "fd00::1") + n for n, group in enumerate(expected)}
    table = compiled(rules, {address: {group} for group, address in sources.items()})
    for group, reached in expected.items():
        assert {name for name, address in places.items() if decide(rules, {group}, address).allowed} == reached
        assert {name for name, address in places.items() if table.allows(sources[group], address)} == reached


def test_a_member_of_several_groups_has_the_rights_of_each() -> None:
    rules = rules_of(THREE, 4)
    assert decide(rules, {"development", "manager"}, ip_address("10.0.2.119")).allowed
    assert decide(rules, {"development", "manager"}, ip_address("10.0.2.120")).allowed


def test_the_prefix_is_matched_before_the_port() -> None:
    rules = [
        Rule(name="net", destination=Destination.parse("10.0.0.0/8"), groups=frozenset({"staff"})),
        Rule(name="web", destination=Destination.parse("10.1.0.5:443/tcp"), groups=frozenset({"staff"})),
        Rule(name="dns", destination=Destination.parse("10.1.0.5:53"), groups=frozenset({"ops"})),
    ]
    server = ip_address("10.1.0.5")
    assert decide(rules, {"staff"}, server, "tcp", 443).allowed
    assert not decide(rules, {"staff"}, server, "tcp", 22).allowed  # though 10.0.0.0/8 has no such limit
    assert not decide(rules, {"staff"}, server, "udp", 53).allowed
    assert decide(rules, {"ops"}, server, "udp", 53).allowed
    assert decide(rules, {"staff"}, ip_address("10.1.0.6"), "tcp", 22).allowed


def test_a_decision_says_why() -> None:
    rules = rules_of(THREE, 4)
    assert str(decide(rules, {"manager"}, ip_address("10.0.2.119"))) == (
        "allowed: 10.0.2.119/32 is the most specific prefix that contains 10.0.2.119, "
        "by rule r3 (10.0.2.119 for manager)"
    )
    assert str(decide(rules, {"manager"}, ip_address("10.0.2.1"))) == (
        "denied: 10.0.0.0/16 is the most specific prefix that contains 10.0.2.1, and it is only for development"
    )
    assert str(decide(rules[:2], {"manager"}, ip_address("192.0.2.1"))) == "denied: no rule contains 192.0.2.1"
    web = [Rule(name="web", destination=Destination.parse("10.0.0.0/8:80,443/tcp"), everyone=True)]
    assert str(decide(web, (), ip_address("10.1.1.1"), "tcp", 22)).endswith("and only 80/tcp, 443/tcp is allowed there")


def test_a_rule_must_be_for_a_group_or_for_everyone_and_not_both() -> None:
    destination = Destination.parse("10.0.0.0/8")
    with pytest.raises(ConfigError, match="rule web: it is for no one; name groups, or everyone"):
        Rule(name="web", destination=destination)
    with pytest.raises(ConfigError, match="for everyone and for groups"):
        Rule(name="web", destination=destination, everyone=True, groups=frozenset({"staff"}))
    with pytest.raises(ConfigError, match=r"rule 'a b': expected a name"):
        Rule(name="a b", destination=destination, everyone=True)
