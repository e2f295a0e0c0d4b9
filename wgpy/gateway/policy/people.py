"""Users, their groups, and their devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {"name": self.name, "description": self.description}


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who has devices. Raises ConfigError for a name with odd characters."""

    name: str
    groups: frozenset[str] = frozenset()
    enabled: bool = True
    expires: float | None = None
    """When the user loses access, in seconds since 1970; None for never."""
    expired: bool = False
    """Whether the gateway has seen that moment pass. This stays, even if somebody sets the date back."""

    def __post_init__(self) -> None:
        checked("user", self.name)

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {
            "name": self.name,
            "groups": sorted(self.groups),
            "enabled": self.enabled,
            "expires": self.expires,
            "expired": self.expired,
        }

    def is_expired(self, wall: float) -> bool:
        """Whether the user has lost access by now, which is `wall` in seconds since 1970."""
        return self.expired or (self.expires is not None and self.expires <= wall)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A key of a user, with its addresses. Raises ConfigError for a name with odd characters."""

    name: str
    user: str
    public_key: PublicKey
    addresses: tuple[Address, ...]
    enabled: bool = True
    signed_in_at: float | None = None
    """When its user last proved who they are, in seconds since 1970; None for never."""

    def __post_init__(self) -> None:
        checked("device", self.name)

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {
            "name": self.name,
            "user": self.user,
            "public_key": self.public_key.base64(),
            "addresses": list(map(str, self.addresses)),
            "enabled": self.enabled,
            "signed_in_at": self.signed_in_at,
        }
