"""The rule tester: whether a user may reach a destination, which rule decides, and what else keeps the user out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from wgpy.errors import ConfigError
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.people import User
from wgpy.gateway.policy.rules import Decision, Rule, decide


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules decide about a user. Its text is a sentence."""

    user: User
    decision: Decision
    expired: bool
    """Whether the user has lost access by now."""

    @property
    def obstacle(self) -> str:
        """What keeps the user out whatever the rules say: "disabled", "expired", or empty for nothing."""
        return "disabled" if not self.user.enabled else "expired" if self.expired else ""

    def __str__(self) -> str:
        return f"{self.decision}{self.obstacle and f'; but {self.user.name} is {self.obstacle}'}"

    def json(self) -> dict[str, Any]:
        """What is shown of it."""
        decision = self.decision
        return {
            "allowed": decision.allowed,
            "prefix": decision.prefix and str(decision.prefix),
            "rule": decision.rule and decision.rule.name,
            "why": decision.why,
            "enabled": self.user.enabled,
            "expired": self.expired,
        }


def judge(rules: Iterable[Rule], user: User, destination: str, wall: float) -> Verdict:
    """Judge one address, or one with a port such as 10.0.1.5:443/tcp; `wall` is now in seconds since 1970.

    Raises ConfigError.
    """
    parsed = Destination.parse(destination)
    network, ports = parsed.network, parsed.ports
    if network.num_addresses > 1 or len({each.protocol for each in ports}) > 1 or any(
        each.first != each.last and each.protocol != "icmp" for each in ports
    ):  # fmt: skip
        raise ConfigError(f"destination {destination!a}: expected one address, or one with a port such as :443/tcp")
    protocol, port = (ports[0].protocol, ports[0].first) if ports else ("", 0)
    decision = decide(rules, user.groups, network.network_address, protocol, port)
    return Verdict(user, decision, user.is_expired(wall))
