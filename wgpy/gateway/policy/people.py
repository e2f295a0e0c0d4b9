"""Users, their groups, and their devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.names import checked
from wgpy.keys import PublicKey

LOCAL: Final = "local"
"""The source of users that no directory knows."""
LONGEST_SUBJECT: Final = 255  # characters of what a directory calls somebody for ever (OpenID Connect Core, section 2)


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
    source: str = LOCAL
    """The directory that the user comes from, or "local"."""
    subject: str | None = None
    """What the directory calls the user and never gives to another: OIDC's `sub`, LDAP's entryUUID. None if local."""
    display_name: str = ""
    email: str = ""
    groups: frozenset[str] = frozenset()
    enabled: bool = True
    suspended: bool = False
    """Whether the directory has disabled or removed the user, or could not be asked for too long."""
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
            "source": self.source,
            "subject": self.subject,
            "display_name": self.display_name,
            "email": self.email,
            "groups": sorted(self.groups),
            "enabled": self.enabled,
            "suspended": self.suspended,
            "expires": self.expires,
            "expired": self.expired,
        }

    @property
    def is_allowed(self) -> bool:
        """Whether neither an administrator nor the directory has disabled the user."""
        return self.enabled and not self.suspended

    def is_expired(self, wall: float) -> bool:
        """Whether the user has lost access by now, which is `wall` in seconds since 1970."""
        return self.expired or (self.expires is not None and self.expires <= wall)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who has just proved who they are. `(source, subject)` says who that is; the name may be another's as well."""

    name: str
    """What the person is called; becomes the user's name when they first come."""
    source: str = LOCAL
    subject: str | None = None
    groups: frozenset[str] = frozenset()
    """The groups that the directory says the person is in, by the directory's names."""
    display_name: str = ""
    email: str = ""


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
    certificate: str | None = None
    """Why the certificate that the device is bound to is not accepted; empty if it is, and None if it has none."""

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
            "certificate": self.certificate,
        }
