"""Compiled rules allow exactly what the slow evaluator allows, and stay small."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wgpy.gateway.policy.compiler import EVERYTHING, Compiled, Interval, compiled, disjoint
from wgpy.gateway.policy.destinations import Address, Destination, Network, Ports, merged
from wgpy.gateway.policy.rules import Rule, decide

GROUPS = ["a", "b", "c"]
BASES = {4: int(IPv4Address("10.0.0.0")), 6: int(IPv6Address("2001:db8::"))}
BITS = 5  # rules lie in 32 addresses, so that they meet; and some are for all addresses


@st.composite
def networks(draw: st.DrawFn) -> Network:
    version = draw(st.sampled_from([4, 6]))
    if draw(st.integers(0, 7)) == 0:
        return ip_network("0.0.0.0/0" if version == 4 else "::/0")
    bits = draw(st.integers(0, BITS))
    number = BASES[version] + (draw(st.integers(0, 2**BITS - 1)) >> bits << bits)
    address = IPv4Address(number) if version == 4 else IPv6Address(number)
    return ip_network((address, address.max_prefixlen - bits))


ports = st.builds(
    lambda protocol, first, more: Ports(protocol, first, first + more),
    st.sampled_from(["tcp", "udp"]),
    st.integers(1, 6),
    st.integers(0, 2),
) | st.just(Ports("icmp", 1, 65535))
destinations = st.builds(
    lambda network, ranges: Destination(network, merged(ranges)), networks(), st.lists(ports, max_size=2)
)
someone = st.frozensets(st.sampled_from(GROUPS), min_size=1)
rules = st.builds(
    lambda destination, groups, everyone: Rule(
        name="r", destination=destination, groups=frozenset() if everyone else groups, everyone=everyone
    ),
    destinations,
    someone,
    st.integers(0, 5).map(lambda n: n == 0),
)
packets = st.tuples(st.sampled_from(["", "tcp", "udp", "icmp"]), st.integers(1, 9))


def addresses(version: int) -> list[Address]:
    """Every address of the small world, and one before and after."""
    made = IPv4Address if version == 4 else IPv6Address
    return [made(BASES[version] + offset) for offset in range(-1, 2**BITS + 1)]


@given(st.lists(rules, max_size=8), st.frozensets(st.sampled_from([*GROUPS, "unknown"])), packets)
def test_compiled_rules_allow_what_the_evaluator_allows(
    given: list[Rule], groups: frozenset[str], packet: tuple[str, int]
) -> None:
    sources: dict[int, Address] = {4: ip_address("192.0.2.1"), 6: ip_address("fd00::1")}
    table = compiled(given, dict.fromkeys(sources.values(), groups))
    for version, source in sources.items():
        for address in addresses(version):
            assert table.allows(source, address, *packet) == decide(given, groups, address, *packet).allowed
    for reach in table.reaches:
        for intervals in reach:
            assert all(before.last < after.first for before, after in pairwise(intervals))
            assert all(b.last + 1 < a.first or b.grant != a.grant for b, a in pairwise(intervals))


@given(st.frozensets(networks(), max_size=9))
def test_prefixes_become_disjoint_intervals_of_the_most_specific(given: frozenset[Network]) -> None:
    for version in (4, 6):
        same = [network for network in given if network.version == version]
        intervals = list(disjoint(same))
        assert all(before[1] < after[0] for before, after in pairwise(intervals))
        for address in addresses(version):
            around = [network for network in same if address in network]
            owner = max(around, key=lambda network: network.prefixlen, default=None)
            found = [network for first, last, network in intervals if first <= int(address) <= last]
            assert found == ([owner] if owner else [])


def test_an_unassigned_source_reaches_nothing() -> None:
    table = compiled([Rule(name="all", destination=Destination.parse("0.0.0.0/0"), everyone=True)], {})
    assert table == Compiled((), {})
    assert not table.allows(ip_address("10.0.0.1"), ip_address("10.0.0.2"))


def test_ten_thousand_devices_and_two_hundred_rules_are_thousands_of_elements() -> None:
    """A list for each set of groups with other rights: the groups of no rule make no difference."""
    some = [
        Rule(
            name=f"r{n}",
            destination=Destination(
                IPv6Network((0x20010DB8 << 96 | n << 80, 48)) if n % 2 else ip_network(f"10.{n}.0.0/16")
            ),
            groups=frozenset({f"g{n % 20}"}),
        )
        for n in range(200)
    ]
    members: dict[Address, set[str]] = {
        IPv4Address(0x0A640000 + n): {f"g{n % 20}", f"g{n % 7}", f"of no rule {n}"} for n in range(10_000)
    }
    table = compiled(some, members)
    assert len(table.sources) == 10_000
    assert len(table.reaches) <= 140
    assert sum(len(intervals) for reach in table.reaches for intervals in reach) <= 140 * 20


def test_neighbours_with_the_same_grant_are_one_interval() -> None:
    halves = [
        Rule(name="low", destination=Destination.parse("10.0.0.0/25"), everyone=True),
        Rule(name="high", destination=Destination.parse("10.0.0.128/25"), everyone=True),
    ]
    (reach,) = compiled(halves, {ip_address("192.0.2.1"): ()}).reaches
    first = int(IPv4Address("10.0.0.0"))
    assert reach.ipv4 == (Interval(first, first + 255, EVERYTHING),)
