"""What the service asks of the system: of the firewall, and of the interface."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from wgpy.gateway.enforcement.nft import Passed
from wgpy.gateway.policy.compiler import Compiled
from wgpy.gateway.policy.destinations import Address, Network
from wgpy.gateway.policy.portal import Service
from wgpy.gateway.policy.routes import Route
from wgpy.gateway.policy.snapshot import Policy
from wgpy.keys import PublicKey


class Enforcement(Protocol):
    """The firewall, as `wgpy.gateway.enforcement.nft.Firewall`."""

    def exists(self) -> bool: ...
    def changed_by(self, ports: set[int]) -> bool: ...
    def replace(
        self,
        pools: Iterable[Network],
        compiled: Compiled,
        routes: Iterable[Route],
        services: Iterable[Service],
        *,
        log_denied: bool = False,
    ) -> bool: ...
    def admit(self, opened: dict[Address, float], closed: Iterable[Address] = ()) -> None: ...
    def sent(self) -> dict[Address, Passed]: ...
    def received(self) -> dict[Address, Passed]: ...


class Plane(Protocol):
    """The interface, as `wgpy.gateway.enforcement.dataplane.DataPlane`."""

    def is_up(self, interface: str) -> bool: ...
    def networks_of_host(self, *interfaces: str) -> dict[str, list[Network]]: ...
    def check(self, policy: Policy) -> None: ...
    def up(self, policy: Policy) -> None: ...
    def follow(self, policy: Policy) -> None: ...
    def guard(self, interface: str) -> None: ...
    def clients(self, interface: str) -> dict[PublicKey, tuple[str, str]]: ...
