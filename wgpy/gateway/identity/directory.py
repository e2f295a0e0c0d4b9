"""What every kind of directory answers: who somebody is now, and whether it can be used."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Any, Final, Protocol

from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.people import Person
from wgpy.gateway.store import directories
from wgpy.gateway.store.database import Database

AT_ONCE: Final = 2  # checks by administrators and programs, each of which takes a thread and connections
_TURNS: Final = BoundedSemaphore(AT_ONCE)


class Unavailable(ControlError):
    """The directory gives no answer, or one that cannot be believed. That says nothing about any person."""

    token: bytes | None = None
    """What the client needs to ask about the person next time, if that has changed all the same."""


class Refused(ConfigError):
    """The directory, or what it says about a person, does not let that person in. The text is for them to read."""


class CannotAsk(Exception):
    """The directory has no means to be asked about this person again: only the length of their session bounds it."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Somebody who is in the directory and may use it now."""

    person: Person
    token: bytes | None = field(default=b"", repr=False)
    """What the client needs to ask about this person again, which the store keeps sealed; None if it cannot ask."""


class Client(Protocol):
    """Asks one directory."""

    async def check(self, subject: str, token: bytes) -> Confirmed | None:
        """Ask about somebody who has signed in before; None if they are disabled or gone.

        Raises Unavailable, CannotAsk, and Refused if they are there but may not use this any more.
        """

    async def probe(self) -> dict[str, Any]:
        """Ask whether the directory can be used as it is set, and return what it says. Raises Unavailable."""

    async def close(self) -> None:
        """Close all connections."""


def client(directory: Directory, secret: bytes) -> Client:
    """The client for a directory, with the directory's secret. Nothing is asked yet. Raises ConfigError."""
    if directory.kind == "ldap":
        from wgpy.gateway.identity.ldap.client import LdapClient

        return LdapClient(directory, secret)
    if directory.kind == "oidc":
        from wgpy.gateway.identity.oidc import Provider

        return Provider(directory, secret)
    raise ConfigError(f"directory {directory.name}: this wgpy cannot ask directories of the kind {directory.kind}")


def check(directory: Directory, secret: bytes) -> dict[str, Any]:
    """Ask a directory once whether it can be used as it is set, and return what it says of itself.

    This takes a thread, and as long as the directory's timeout. Raises ConfigError, Unavailable, and ControlError if
    AT_ONCE are being checked already.
    """
    if not _TURNS.acquire(blocking=False):
        raise ControlError("other directories are being checked; try again in a moment")
    try:
        return asyncio.run(_probe(directory, secret))
    finally:
        _TURNS.release()


async def _probe(directory: Directory, secret: bytes) -> dict[str, Any]:
    made = client(directory, secret)
    try:
        return await made.probe()
    finally:
        await made.close()


class Clients:
    """The clients of a gateway's directories in one event loop, each as its directory is set now."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._made: dict[str, tuple[Directory, bytes, Client]] = {}

    async def of(self, name: str) -> Client:
        """The client of a directory. Raises ConfigError if there is none of that name, and ControlError."""
        directory, secret = await asyncio.to_thread(self._read, name)
        former = self._made.get(name)
        if former and former[:2] == (directory, secret):
            return former[2]
        made = client(directory, secret)
        self._made[name] = (directory, secret, made)
        if former:
            await former[2].close()
        return made

    async def close(self) -> None:
        """Close all connections."""
        for _, _, made in self._made.values():
            await made.close()
        self._made.clear()

    def _read(self, name: str) -> tuple[Directory, bytes]:
        with self._database.read() as connection:
            secret = directories.secret(connection, self._database.vault, name)
            return directories.find(connection, name), secret
