"""Tokens: what programs prove with that they may use the API, and what each may do there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from wgpy.errors import ConfigError
from wgpy.gateway.policy.names import checked

PREFIX: Final = "wgpy_"
"""What each token begins with, so that people and scanners of leaked secrets recognize it."""
SEEN_EVERY: Final = 60.0
"""Seconds between two records of the last use, so that not every request writes to the database."""
SCOPES: Final = {
    "read": "read everything, which includes public keys and logs, and no secret",
    "write": "read everything, and change all but administrators, the gateway's private key, how people sign in, the "
    "handler, tokens and what the scopes below are for",
    "credentials": "set passwords and authenticator apps of all but administrators, make links with which they choose "
    "their password, and say whose client certificates are accepted",
    "sign-in": "confirm that the user of a device is who they say, and end sessions",
    "backup": "download the database, in which secrets are sealed or hashed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, without its text, which nobody but its owner has. Raises ConfigError for values that cannot be used."""

    name: str
    scopes: frozenset[str]
    made_at: float
    """In seconds since 1970, as the other times."""
    expires: float | None = None
    used_at: float | None = None
    """When it was last used, to the minute; None for never."""

    def __post_init__(self) -> None:
        checked("token", self.name)
        if not self.scopes:
            raise ConfigError(f"token {self.name}: it is for nothing; give it a scope: {', '.join(SCOPES)}")
        for scope in sorted(self.scopes - {*SCOPES}):
            raise ConfigError(f"token {self.name}: scope {scope!a}: expected one of {', '.join(SCOPES)}")

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {
            "name": self.name,
            "scopes": sorted(self.scopes),
            "made_at": self.made_at,
            "expires": self.expires,
            "used_at": self.used_at,
        }

    def allows(self, scope: str) -> bool:
        """Whether it may be used for what the scope is for."""
        return scope in self.scopes or (scope == "read" and "write" in self.scopes)

    def is_expired(self, wall: float) -> bool:
        """Whether it is of no use any more by now, which is `wall`."""
        return self.expires is not None and self.expires <= wall

    def is_seen_late(self, wall: float) -> bool:
        """Whether its last use is to be recorded again."""
        return self.used_at is None or not 0 <= wall - self.used_at < SEEN_EVERY
