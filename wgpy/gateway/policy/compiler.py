"""Compiles authorization rules into disjoint intervals of destinations, one list for each set of groups.

A packet filter then needs two lookups for each packet: the source address gives the set of groups, and in that set's
intervals the destination address gives what is allowed. Sets of groups with the same rights share one list. So 10,000
devices and 200 rules are 10,000 sources and a few hundred intervals for each different list.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wgpy.gateway.policy.destinations import Address, Network, Ports, includes, merged
from wgpy.gateway.policy.rules import Rule

EVERYTHING: tuple[Ports, ...] = ()
"""What a grant of all protocols and ports is."""


class Interval(NamedTuple):
    """Destinations from `first` to `last`, as numbers, and the ports allowed there; EVERYTHING for all."""

    first: int
    last: int
    grant: tuple[Ports, ...]


class Reach(NamedTuple):
    """What somebody may reach, in sorted intervals that do not overlap or touch with the same grant."""

    ipv4: tuple[Interval, ...]
    ipv6: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """The different `reaches`, and for each source address the index of its own."""

    reaches: tuple[Reach, ...]
    sources: Mapping[Address, int]

    def allows(self, source: Address, destination: Address, protocol: str = "", port: int = 0) -> bool:
        """Whether a packet would pass: what a packet filter does with the result."""
        if source.version != destination.version or (index := self.sources.get(source)) is None:
            return False
        reach, number = self.reaches[index], int(destination)
        for first, last, grant in reach.ipv4 if destination.version == 4 else reach.ipv6:
            if first <= number <= last:
                return includes(grant, protocol, port)
        return False


def compiled(rules: Sequence[Rule], members: Mapping[Address, Collection[str]]) -> Compiled:
    """Compile the rules for `members`: the groups of whoever has each source address."""
    owned = {version: _Owned(rules, version) for version in (4, 6)}
    known = {group for rule in rules for group in rule.groups}
    by_groups: dict[frozenset[str], int] = {}
    reaches: dict[Reach, int] = {}
    sources = {}
    for address, groups in members.items():
        relevant = known.intersection(groups)
        key = frozenset(relevant)
        if (index := by_groups.get(key)) is None:
            reach = Reach(owned[4].reach(key), owned[6].reach(key))
            index = by_groups[key] = reaches.setdefault(reach, len(reaches))
        sources[address] = index
    return Compiled(tuple(reaches), sources)


class _Owned:
    """The prefixes of the rules of one IP version: the intervals each one decides, and whom it is for."""

    def __init__(self, rules: Iterable[Rule], version: int) -> None:
        self._rules: dict[Network, list[Rule]] = {}
        self._prefixes: dict[str, set[Network]] = {}  # by group
        self._of_everyone: set[Network] = set()
        for rule in rules:
            network = rule.destination.network
            if network.version == version:
                self._rules.setdefault(network, []).append(rule)
                for group in rule.groups:
                    self._prefixes.setdefault(group, set()).add(network)
                if rule.everyone:
                    self._of_everyone.add(network)
        self._intervals: dict[Network, list[tuple[int, int]]] = {}
        for first, last, network in disjoint(self._rules):
            self._intervals.setdefault(network, []).append((first, last))

    def reach(self, groups: Collection[str]) -> tuple[Interval, ...]:
        """The intervals that somebody in these groups may reach."""
        prefixes = self._of_everyone.union(*(self._prefixes.get(group, ()) for group in groups))
        found: list[Interval] = []
        for network in prefixes:
            grant = _grant(rule for rule in self._rules[network] if rule.admits(groups))
            found += (Interval(first, last, grant) for first, last in self._intervals.get(network, ()))
        joined: list[Interval] = []
        for each in sorted(found):
            if joined and joined[-1].last + 1 == each.first and joined[-1].grant == each.grant:
                joined[-1] = joined[-1]._replace(last=each.last)
            else:
                joined.append(each)
        return tuple(joined)


def _grant(rules: Iterable[Rule]) -> tuple[Ports, ...]:
    destinations = [rule.destination for rule in rules]
    if not all(destination.ports for destination in destinations):
        return EVERYTHING
    return merged(ports for destination in destinations for ports in destination.ports)


def disjoint(prefixes: Iterable[Network]) -> Iterator[tuple[int, int, Network]]:
    """Cut prefixes of one IP version into sorted intervals, each with the most specific prefix that contains it."""
    open_: list[
        tuple[int, Network]
    ] = []  # those around the present place, the innermost last: each with its last address
    place = 0

    def close(up_to: int) -> Iterator[tuple[int, int, Network]]:
        nonlocal place
        while open_ and open_[-1][0] < up_to:
            last, network = open_.pop()
            if place <= last:
                yield place, last, network
                place = last + 1

    for network in sorted(prefixes, key=lambda each: (int(each.network_address), each.prefixlen)):
        first = int(network.network_address)
        yield from close(first)
        if open_ and place < first:
            yield place, first - 1, open_[-1][1]
        place = first
        open_.append((int(network.broadcast_address), network))
    yield from close(1 << 129)
