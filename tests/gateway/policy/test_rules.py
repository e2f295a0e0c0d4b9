"""Which authorization rule decides: the scenarios of AWS's documentation, each in IPv4 and in IPv6.

"Example scenarios for Client VPN authorization rules", AWS Client VPN Administrator Guide:
https://docs.aws.amazon.com/vpn/latest/clientvpn-admin/cvpn-working-rules.html#auth-rule-example-scenarios
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from wgpy.errors import ConfigError
from wgpy.gateway.policy.compiler import compiled
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule, decide

# AWS's prefixes, and IPv6 prefixes that lie within one another in the same way.
IPV6 = {
    "0.0.0.0/0": "::/0",
    "10.0.0.0/16": "2001:db8:a::/48",
    "10.0.2.119/32": "2001:db8:a:2::119",
    "172.16.0.0/24": "2001:db8:b::/48",
    "172.16.0.128/25": "2001:db8:b:8000::/49",
    "192.168.0.0/24": "2001:db8:c::/48",
}
# The places of AWS's drawing: an address of each, in both versions.
PLACES = {
    "on-premises": ("172.16.0.5", "2001:db8:b::5"),
    "on-premises subnet": ("172.16.0.200", "2001:db8:b:8000::200"),
    "development": ("10.0.77.7", "2001:db8:a:77::7"),
    "development host": ("10.0.2.119", "2001:db8:a:2::119"),
    "client VPC": ("192.168.0.9", "2001:db8:c::9"),
    "internet": ("198.51.100.1", "2001:db8:ffff::1"),
}
ENGINEERING = ("engineering", "172.16.0.0/24")
DEVELOPMENT = ("development", "10.0.0.0/16")
ONE = [ENGINEERING, DEVELOPMENT, ("manager", "192.168.0.0/24")]
TWO = [ENGINEERING, DEVELOPMENT, ("manager", "0.0.0.0/0")]
THREE = [*TWO, ("manager", "10.0.2.119/32")]
FOUR = [*THREE, ("engineering", "172.16.0.128/25")]
FIVE = [*FOUR, ("engineering", "0.0.0.0/0")]
SIX = [*FIVE, ("manager", "192.168.0.0/24")]
ALL = [*SIX, ("", "0.0.0.0/0")]
TROUBLESHOOTING = [("one", "10.0.0.0/16"), ("two", "0.0.0.0/0"), ("three", "0.0.0.0/0"), ("two", "192.168.0.0/24")]
PREMISES = {"on-premises", "on-premises subnet"}
SCENARIOS: dict[str, tuple[list[tuple[str, str]], dict[str, set[str]]]] = {
    "access to a single destination": (
        ONE,
        {"engineering": PREMISES, "development": {"development", "development host"}, "manager": {"client VPC"}},
    ),
    "any destination": (
        TWO,
        {
            "engineering": PREMISES,
            "development": {"development", "development host"},
            "manager": {"client VPC", "internet"},
        },
    ),
    "longer prefix": (
        THREE,
        {
            "engineering": PREMISES,
            "development": {"development"},
            "manager": {"client VPC", "internet", "development host"},
        },
    ),
    "overlapping prefixes of the same group": (
        FOUR,
        {
            "engineering": PREMISES,
            "development": {"development"},
            "manager": {"client VPC", "internet", "development host"},
        },
    ),
    "a second rule for any destination": (
        FIVE,
        {
            "engineering": {*PREMISES, "client VPC", "internet"},
            "development": {"development"},
            "manager": {"client VPC", "internet", "development host"},
        },
    ),
    "a rule for the VPC": (
        SIX,
        {
            "engineering": {*PREMISES, "internet"},
            "development": {"development"},
            "manager": {"client VPC", "internet", "development host"},
        },
    ),
    # AWS's text leaves the internet out of what development may reach here, but its rule is for all users.
    "access for all groups": (
        ALL,
        {
            "engineering": {*PREMISES, "internet"},
            "development": {"development", "internet"},
            "manager": {"client VPC", "internet", "development host"},
            "admin": {"internet"},
        },
    ),
    "the groups of the page on troubleshooting": (
        TROUBLESHOOTING,
        {
            "one": {"development", "development host"},
            "two": {"client VPC", "internet", *PREMISES},
            "three": {"internet", *PREMISES},
        },
    ),
    "no rules": ([], {"engineering": set()}),
}


def rules_of(scenario: Sequence[tuple[str, str]], version: int) -> list[Rule]:
    return [
        Rule(
            name=f"r{number}",
            destination=Destination.parse(prefix if version == 4 else IPV6[prefix]),
            groups=frozenset({group} - {""}),
            everyone=not group,
        )
        for number, (group, prefix) in enumerate(scenario)
    ]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_who_reaches_what_in_the_scenarios_of_aws(scenario: str, version: int, *, backwards: bool) -> None:
    given, expected = SCENARIOS[scenario]
    rules = rules_of(given[::-1] if backwards else given, version)
    places = {name: ip_address(addresses[version == 6]) for name, addresses in PLACES.items()}
    sources = {group: ip_address("10.9.0.1" if version == 4 else "fd00::1") + n for n, group in enumerate(expected)}
    table = compiled(rules, {address: {group} for group, address in sources.items()})
    for group, reached in expected.items():
        assert {name for name, address in places.items() if decide(rules, {group}, address).allowed} == reached
        assert {name for name, address in places.items() if table.allows(sources[group], address)} == reached


def test_who_is_in_several_groups_has_the_rights_of_each() -> None:
    rules = rules_of(THREE, 4)
    assert decide(rules, {"development", "manager"}, ip_address("10.0.2.119")).allowed
    assert decide(rules, {"development", "manager"}, ip_address("10.0.2.120")).allowed


def test_ports_are_looked_at_after_the_prefix() -> None:
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


def test_a_rule_for_no_one_or_for_both_is_refused() -> None:
    destination = Destination.parse("10.0.0.0/8")
    with pytest.raises(ConfigError, match="rule web: it is for no one; name groups, or everyone"):
        Rule(name="web", destination=destination)
    with pytest.raises(ConfigError, match="for everyone and for groups"):
        Rule(name="web", destination=destination, everyone=True, groups=frozenset({"staff"}))
    with pytest.raises(ConfigError, match=r"rule 'a b': expected a name"):
        Rule(name="a b", destination=destination, everyone=True)
