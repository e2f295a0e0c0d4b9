"""What every kind of directory answers: who somebody is now, and whether it can be used."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.people import Person


class Unavailable(ControlError):
    """The directory gives no answer, or one that cannot be believed. That says nothing about any person."""


class Refused(ConfigError):
    """The directory, or what it says about a person, does not let that person in. The text is for them to read."""


class Confirmed(NamedTuple):
    """Somebody who is in the directory and may use it now."""

    person: Person
    token: bytes = b""
    """What the client needs to ask about this person again; the store keeps it sealed."""


class Client(Protocol):
    """Asks one directory."""

    async def check(self, subject: str, token: bytes) -> Confirmed | None:
        """Ask about somebody who has signed in before; None if they are disabled or gone. Raises Unavailable."""

    async def probe(self) -> dict[str, Any]:
        """Ask whether the directory can be used as it is set, and return what it says. Raises Unavailable."""


def client(directory: Directory, secret: bytes) -> Client:
    """The client for a directory, with the directory's secret. Nothing is asked yet. Raises ConfigError."""
    if directory.kind == "ldap":
        from wgpy.gateway.identity.ldap.client import LdapClient

        return LdapClient(directory, secret)
    raise ConfigError(f"directory {directory.name}: this wgpy cannot ask directories of the kind {directory.kind}")
