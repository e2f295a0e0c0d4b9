"""Users, their groups, and their devices."""

from __future__ import annotations

from dataclasses import dataclass

from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.names import checked
from wgpy.keys import PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A name that rules are made for. Raises ConfigError for a name with odd characters."""

    name: str
    description: str = ""

    def __post_init__(self) -> None:
        checked("group", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who has devices. Raises ConfigError for a name with odd characters."""

    name: str
    groups: frozenset[str] = frozenset()
    enabled: bool = True
    expires: float | None = None
    """When the user loses access, in seconds since 1970; None for never."""

    def __post_init__(self) -> None:
        checked("user", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A key of a user, with its addresses. Raises ConfigError for a name with odd characters."""

    name: str
    user: str
    public_key: PublicKey
    addresses: tuple[Address, ...]
    enabled: bool = True

    def __post_init__(self) -> None:
        checked("device", self.name)
