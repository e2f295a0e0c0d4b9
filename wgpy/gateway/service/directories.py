"""Asks directories again about their people: groups follow, and who is disabled there loses the session.

It runs beside the gateway's ticks, which notice what it writes. Each directory has a task of its own, so one that is
slow keeps only its own people waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from wgpy.errors import ConfigError, WgpyError
from wgpy.gateway.identity.directory import CannotAsk, Clients, Confirmed, Refused, Unavailable
from wgpy.gateway.store import directories, users
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.directories import Due

log: Final = logging.getLogger("wgpy.gateway")

PAUSE: Final = 5.0  # seconds between two looks at who is due
MOST: Final = 64  # people about whom one directory is asked at once
_WHO: Final = "directory"

Answer = Confirmed | Unavailable | CannotAsk | None
"""What a directory says about somebody: that they are there, nothing, nothing for ever, or that they are gone."""


async def keep_checking(database: Database) -> None:
    """Ask all directories about all people who are due, again and again. It ends when it is cancelled."""
    clients = Clients(database)
    checks = Checks(database, clients)
    running: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            try:
                for source in await asyncio.to_thread(checks.due):
                    if source not in running or running[source].done():
                        running[source] = asyncio.create_task(checks.check(source))
            except WgpyError as error:
                log.error("directories: %s; trying again", error)
            await asyncio.sleep(PAUSE)
    finally:
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
        await clients.close()


class Checks:
    """Asks directories about their people, and records what they say."""

    def __init__(self, database: Database, clients: Clients) -> None:
        self._database, self._clients = database, clients
        self._troubles: dict[str, str] = {}  # by directory: what was logged

    def due(self) -> list[str]:
        """The directories that have to be asked about somebody. Raises ControlError."""
        with self._database.read() as connection:
            return directories.sources_due(connection, self._database.clock())

    async def check(self, source: str) -> None:
        """Ask one directory about everybody who is due. After a round of which it answers nothing, the rest wait."""
        try:
            while due := await asyncio.to_thread(self._claim, source):
                answers = dict(zip((each.user for each in due), await self._ask(source, due), strict=True))
                trouble = next((each for each in answers.values() if isinstance(each, Unavailable)), None)
                self._tell(source, str(trouble or ""))
                await asyncio.to_thread(self._record, source, due, answers)
                if all(isinstance(each, Unavailable) for each in answers.values()):
                    return
        except WgpyError as error:
            self._tell(source, str(error))
        except Exception:
            log.exception("directory %s: this is a bug", source)

    async def _ask(self, source: str, due: Sequence[Due]) -> list[Answer]:
        try:
            client = await self._clients.of(source)
        except ConfigError as error:  # a secret that the vault does not open, or a kind that only a newer wgpy knows
            return [Unavailable(str(error)) for _ in due]

        async def ask(each: Due) -> Answer:
            try:
                return await client.check(each.subject, each.token)
            except (Unavailable, CannotAsk) as answer:
                return answer
            except Refused:  # they are there, but may not use this any more
                return None

        return await asyncio.gather(*map(ask, due))

    def _claim(self, source: str) -> list[Due]:
        with self._database.change(_WHO) as change:
            return directories.claim_due(change, source, MOST)

    def _record(self, source: str, due: Sequence[Due], answers: Mapping[str, Answer]) -> None:
        with self._database.change(f"{_WHO} {source}") as change:
            grace = directories.find(change.connection, source).grace
            for each in due:
                answer = answers[each.user]
                if not directories.is_current(change.connection, each):  # removed meanwhile, or signed in again
                    continue
                if isinstance(answer, Confirmed):
                    users.take_in(change, answer.person)
                    directories.confirm(change, each.user, answer.token)
                elif isinstance(answer, CannotAsk):
                    directories.confirm(change, each.user, None)
                elif answer is None:
                    log.info("directory %s: user %s is disabled or gone; the session ends", source, each.user)
                    users.suspend(change, each.user)
                elif answer.token is not None:
                    directories.keep(change, each.user, answer.token)
            silent = [each.user for each in due if isinstance(answers[each.user], Unavailable)]
            # Of a directory that answers nothing at all everybody is judged, however many there are to ask about.
            for user in directories.overdue(change, source, grace, None if len(silent) == len(due) else silent):
                log.warning("directory %s: user %s is out; nobody has vouched for them for %s s", source, user, grace)
                users.suspend(change, user)

    def _tell(self, source: str, trouble: str) -> None:
        """Log what is wrong, once, and that it is over."""
        before, self._troubles[source] = self._troubles.get(source, ""), trouble
        if trouble and trouble != before:
            log.error("%s; trying again", trouble)
        elif before and not trouble:
            log.warning("directory %s: all is well again", source)
