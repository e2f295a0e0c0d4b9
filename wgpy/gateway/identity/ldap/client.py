"""A directory for the gateway's event loop: what blocks runs in threads, of which there are few for all directories."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from wgpy.gateway.identity.directory import Confirmed
from wgpy.gateway.identity.ldap.people import Denied, People
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.ldap import Settings

T = TypeVar("T")

_THREADS: Final = ThreadPoolExecutor(4, "ldap")


class LdapClient:
    """Asks one directory. `wall` is the time since 1970 in seconds."""

    def __init__(self, directory: Directory, secret: bytes, wall: Callable[[], float] = time.time) -> None:
        self._people = People(directory.name, Settings(**directory.settings), secret.decode())
        self._wall = wall
        self._subjects: set[str] = set()
        self._next: asyncio.Task[dict[str, Confirmed | None]] | None = None

    async def check(self, subject: str, token: bytes) -> Confirmed | None:
        """Ask about somebody who has signed in before; None if they are disabled or gone. Raises Unavailable.

        All who are asked about at the same moment are one question to the directory.
        """
        self._subjects.add(subject)
        if self._next is None:
            self._next = asyncio.create_task(self._check())
        return (await asyncio.shield(self._next))[subject]

    async def probe(self) -> dict[str, Any]:
        """Ask whether the directory can be used as it is set, and return what it says. Raises Unavailable."""
        return await self._run(self._people.probe)

    async def close(self) -> None:
        """Close all connections, of which there are none: each question has its own."""

    async def _check(self) -> dict[str, Confirmed | None]:
        await asyncio.sleep(0)
        subjects, self._subjects, self._next = self._subjects, set(), None
        found = await self._run(lambda: self._people.check(subjects, self._wall()))
        return {subject: None if isinstance(answer, Denied) else Confirmed(answer) for subject, answer in found.items()}

    async def _run(self, question: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(_THREADS, question)
