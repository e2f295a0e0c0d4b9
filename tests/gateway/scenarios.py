"""The scenarios of AWS's documentation: rules, and who reaches what by them, each in IPv4 and in IPv6.

"Example scenarios for Client VPN authorization rules", AWS Client VPN Administrator Guide:
https://docs.aws.amazon.com/vpn/latest/clientvpn-admin/cvpn-working-rules.html#auth-rule-example-scenarios
"""

from __future__ import annotations

from collections.abc import Sequence

from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule

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
