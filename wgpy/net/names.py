"""Endpoints that are given by name: looked up every two minutes, and at once when a peer does not answer."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from wgpy.config.values import EndpointName
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey
from wgpy.net.resolve import look_up

log: Final = logging.getLogger("wgpy")

INTERVAL: Final = 120.0  # seconds between two lookups of a name whose peer answers
PATIENCE: Final = 15.0  # seconds between two lookups of a name whose peer does not answer


class Names:
    """Follows the names of peers' endpoints. The loop calls `moved` with a peer's key and its new endpoint.

    A peer whose endpoint is an address is left alone, and so is a peer after `forget`.
    """

    def __init__(self, names: Mapping[PublicKey, EndpointName], moved: Callable[[PublicKey, Endpoint], None]) -> None:
        self._names: dict[PublicKey, EndpointName] = {}
        self.follow(names)
        self._answers: dict[PublicKey, list[Endpoint]] = {}
        self._looked_at: dict[PublicKey, float] = {}
        self._moved = moved
        self._tasks: set[asyncio.Task[None]] = set()
        self._regularly: asyncio.Task[None] | None = None

    def follow(self, names: Mapping[PublicKey, EndpointName]) -> None:
        """Follow these names and no others from now on. If the tunnel runs, call `start` afterwards."""
        self._names = {key: name for key, name in names.items() if name.is_host_name}

    def follows(self, public_key: PublicKey, name: EndpointName) -> bool:
        """Whether this peer's endpoint follows this name."""
        return self._names.get(public_key) == name

    def start(self) -> None:
        """Begin to look the names up regularly, if there are any. Starting twice is harmless."""
        if self._names and self._regularly is None:
            self._regularly = self._spawn(self._look_regularly())

    def close(self) -> None:
        """Stop looking names up."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        self._regularly = None

    def forget(self, public_key: PublicKey) -> None:
        """Follow this peer's name no more, because it was given an address."""
        self._names.pop(public_key, None)

    def unanswered(self, public_key: PublicKey, current: Endpoint | None) -> None:
        """Look up a peer that did not answer a handshake at `current`: it may have moved, or have another address."""
        now = asyncio.get_running_loop().time()
        if public_key in self._names and now - self._looked_at.get(public_key, -PATIENCE) >= PATIENCE:
            self._looked_at[public_key] = now
            self._spawn(self._find(public_key, current))

    async def _look_regularly(self) -> None:
        for key in list(self._names):
            await self._look(key)
        while True:
            await asyncio.sleep(INTERVAL)
            for key in list(self._names):
                before = self._answers.get(key)
                answers = await self._look(key)
                if before and answers and not set(before) & set(answers):
                    self._move(key, answers[0])

    async def _find(self, public_key: PublicKey, current: Endpoint | None) -> None:
        answers = await self._look(public_key)
        known = [index for index, answer in enumerate(answers) if current and answer.same_remote(current)]
        if answers and not known:
            self._move(public_key, answers[0])
        elif len(answers) > 1:
            self._move(public_key, answers[(known[0] + 1) % len(answers)])

    async def _look(self, public_key: PublicKey) -> list[Endpoint]:
        name = self._names.get(public_key)
        if name is None:
            return []
        try:
            answers = await look_up(name)
        except socket.gaierror as error:
            log.debug("endpoint %s: %s", name, error.strerror)
            return []
        self._answers[public_key] = answers
        return answers

    def _move(self, public_key: PublicKey, endpoint: Endpoint) -> None:
        if public_key in self._names:
            log.info("%s: %s is now at %s", public_key.short(), self._names[public_key], endpoint)
            self._moved(public_key, endpoint)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
