"""Routes: the networks behind the gateway."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from wgpy.errors import ConfigError
from wgpy.gateway.policy import pools
from wgpy.gateway.policy.destinations import Network
from wgpy.gateway.policy.endpoint import Endpoint

MASQUERADE: Final = "masquerade"
NONE: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A network behind the gateway, which clients with a split tunnel send there.

    `snat` says which source address the network sees: "masquerade" for that of the gateway's interface, an address, or
    "none" for the client's own, which needs a route back. Raises ConfigError.
    """

    network: Network
    snat: str = MASQUERADE

    def __post_init__(self) -> None:
        if self.snat in (MASQUERADE, NONE):
            return
        try:
            if "%" in self.snat:  # a zone may be any text, and nft reads this
                raise ValueError
            version = ip_address(self.snat).version
        except ValueError:
            raise ConfigError(
                f"route {self.network}: snat {self.snat!a} is neither masquerade, none nor an address"
            ) from None
        if version != self.network.version:
            raise ConfigError(
                f"route {self.network}: snat {self.snat} has another IP version; give one of this version"
            )

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {"network": str(self.network), "snat": self.snat}


def check(endpoint: Endpoint, routes: Iterable[Route]) -> None:
    """Check routes against the endpoint: its address and its pools must lie outside. Raises ConfigError."""
    for route in routes:
        for address in endpoint.address_networks():
            if route.network.prefixlen and pools.overlap(route.network, address):
                raise ConfigError(
                    f"route {route.network}: contains the endpoint's own address {endpoint.host}, so clients would "
                    "send the tunnel into itself; give the networks around it"
                )
    pools.check(endpoint.pools, {"route": [route.network for route in routes]})
