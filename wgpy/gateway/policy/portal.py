"""What a device reaches with or without a session, so that its person can sign in: the portal, and names to find it."""

from __future__ import annotations

from typing import Final, NamedTuple

from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.endpoint import Endpoint

DNS: Final = 53


class Service(NamedTuple):
    """A port of TCP or UDP ("tcp", "udp")."""

    protocol: str
    port: int
    address: Address | None = None
    """Where it is; None for the gateway itself, at whichever of its addresses, and 0.0.0.0 for those of IPv4."""


def services(endpoint: Endpoint, portal: Service | None) -> tuple[Service, ...]:
    """What every enabled device reaches: nothing, unless people have to sign in and there is a portal to do so."""
    if portal is None or not endpoint.sign_in:
        return ()
    return portal, *(Service(protocol, DNS, address) for address in endpoint.dns for protocol in ("udp", "tcp"))
