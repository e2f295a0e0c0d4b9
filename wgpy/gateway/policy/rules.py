"""Authorization rules, and which of them decides: the semantics of AWS Client VPN.

Nothing is allowed by default, and a rule only ever allows. The most specific prefix that contains the destination
decides alone: one of the user's groups must be in a rule of *that* prefix. So 0.0.0.0/0 and ::/0, which are the least
specific, decide last, in whatever order rules were made; and a rule for a subnet takes that subnet away from groups
which have a rule only for the network around it.

AWS has no protocols and ports. Here the prefix decides first, as if there were none, and then the ports of its rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from wgpy.errors import ConfigError
from wgpy.gateway.policy.destinations import Address, Destination, Network
from wgpy.gateway.policy.names import checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Allows some groups, or everyone, to reach a destination. Raises ConfigError for a rule that is for no one."""

    name: str
    destination: Destination
    groups: frozenset[str] = frozenset()
    everyone: bool = False

    def __post_init__(self) -> None:
        checked("rule", self.name)
        if self.everyone == bool(self.groups):
            problem = "it is for everyone and for groups" if self.everyone else "it is for no one"
            raise ConfigError(f"rule {self.name}: {problem}; name groups, or everyone")

    def admits(self, groups: Collection[str]) -> bool:
        """Whether the rule is for somebody in these groups."""
        return self.everyone or not self.groups.isdisjoint(groups)

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {
            "name": self.name,
            "destination": str(self.destination),
            "groups": sorted(self.groups),
            "everyone": self.everyone,
        }

    def __str__(self) -> str:
        return f"{self.name} ({self.destination} for {'everyone' if self.everyone else ', '.join(sorted(self.groups))})"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether somebody may reach a destination, and why. Its text is a sentence."""

    allowed: bool
    prefix: Network | None  # which decided; None if no rule's prefix contains the destination
    rule: Rule | None  # which allowed it
    why: str

    def __str__(self) -> str:
        return f"{'allowed' if self.allowed else 'denied'}: {self.why}"


def decide(
    rules: Iterable[Rule], groups: Collection[str], address: Address, protocol: str = "", port: int = 0
) -> Decision:
    """Decide about a packet of somebody in `groups`.

    `protocol` is "tcp", "udp", "icmp" or anything else; `port` is the destination port of TCP and UDP.
    """
    containing = [rule for rule in rules if address in rule.destination.network]
    if not containing:
        return Decision(False, None, None, f"no rule contains {address}")
    prefix = max((rule.destination.network for rule in containing), key=lambda network: network.prefixlen)
    deciding = [rule for rule in containing if rule.destination.network == prefix]
    admitting = [rule for rule in deciding if rule.admits(groups)]
    decides = f"{prefix} is the most specific prefix that contains {address}"
    if not admitting:
        who = sorted(set().union(*(rule.groups for rule in deciding)))
        return Decision(False, prefix, None, f"{decides}, and it is only for {', '.join(who)}")
    for rule in admitting:
        if rule.destination.includes(protocol, port):
            return Decision(True, prefix, rule, f"{decides}, by rule {rule}")
    ports = ", ".join(str(each) for rule in admitting for each in rule.destination.ports)
    return Decision(False, prefix, None, f"{decides}, and only {ports} is allowed there")
