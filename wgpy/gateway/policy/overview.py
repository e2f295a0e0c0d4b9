"""What a person is told: how their devices stand, and what they may reach."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import NamedTuple

from wgpy.gateway.policy.destinations import Network, Ports, merged
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.people import Device
from wgpy.gateway.policy.rules import Rule


class Standing(StrEnum):
    """How a device stands."""

    CONNECTED = "connected"
    READY = "ready"
    """A session begins with what the device sends next."""
    SIGNED_OUT = "signed-out"
    """Its person has to sign in before the next session."""
    REFUSED = "refused"
    """Its certificate is not accepted."""
    DISABLED = "disabled"


def standing(
    device: Device, endpoint: Endpoint, started_at: float | None, wall: float
) -> tuple[Standing, float | None]:
    """How a device stands, and for how many seconds; None if a session has no end yet.

    `started_at` is when its session began; None if it has none. Times are in seconds since 1970, and `wall` is now.
    """
    if not device.enabled:
        return Standing.DISABLED, None
    if device.certificate:
        return Standing.REFUSED, None
    since = device.signed_in_at if endpoint.sign_in else started_at
    left = None if since is None else since + endpoint.session_max - wall
    if started_at is not None and left is not None and left > 0:
        return Standing.CONNECTED, left
    if not endpoint.sign_in:
        return Standing.READY, None
    return (Standing.READY, left) if left is not None and left > 0 else (Standing.SIGNED_OUT, None)


class Reached(NamedTuple):
    """A prefix that somebody may reach, what of it, and which parts of it other lines or nobody's decide about."""

    network: Network
    ports: tuple[Ports, ...]  # empty for everything
    exceptions: tuple[Network, ...]


def reached(rules: Iterable[Rule], groups: Collection[str]) -> list[Reached]:
    """What somebody in these groups may reach, by prefix, as `wgpy.gateway.policy.rules.decide` decides.

    A more specific prefix decides alone. It is an exception to the one around it, unless everything is allowed in both.
    """
    by_prefix: dict[Network, list[Rule]] = {}
    for rule in rules:
        by_prefix.setdefault(rule.destination.network, []).append(rule)
    allowed = {
        network: _ports(admitting)
        for network, every in by_prefix.items()
        if (admitting := [rule for rule in every if rule.admits(groups)])
    }
    exceptions: dict[Network, list[Network]] = {network: [] for network in allowed}
    for network in by_prefix:
        around = _around(network, by_prefix)
        if around in allowed and allowed.get(network) != ():
            exceptions[around].append(network)
    key = _order
    return [
        Reached(network, allowed[network], tuple(sorted(exceptions[network], key=key)))
        for network in sorted(allowed, key=key)
    ]


def _ports(rules: Collection[Rule]) -> tuple[Ports, ...]:
    if not all(rule.destination.ports for rule in rules):
        return ()
    return merged(ports for rule in rules for ports in rule.destination.ports)


def _around(network: Network, others: Iterable[Network]) -> Network | None:
    """The most specific of the others that contains this one."""
    containing = [
        other
        for other in others
        if other != network and other.version == network.version and network.subnet_of(other)  # type: ignore[arg-type]  # of one version
    ]
    return max(containing, key=lambda other: other.prefixlen, default=None)


def _order(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen
