"""A worker's place in the pool: what it owns of the interface, and the process that uses that at the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from socket import socket as Socket
from typing import Final

from wgpy.config.uapi import UapiError, parse_status
from wgpy.device.status import DeviceStatus
from wgpy.errors import ControlError
from wgpy.workers.channel import Body, Kind
from wgpy.workers.process import PATIENCE, WorkerEnded, WorkerProcess

LIFE: Final = 60.0  # seconds after which a process that ends has not failed at once
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds before another process is started in the place of one that did


class Seat:
    """The place of worker `number`. Its descriptors outlive its processes, so nothing that waits in them is lost."""

    process: WorkerProcess | None
    """The process, if there is one now."""
    is_ready: bool
    """Whether the process has the whole configuration, and gets changes of it."""
    is_absent: bool
    """Whether the others take what is new: flows from the TUN, and initiations. It may be long until it is back."""
    replaced: int
    """How many processes have ended before."""

    def __init__(self, number: int, queue: int, links: Sequence[Socket]) -> None:
        """`queue` is a file descriptor of the TUN, `links` lead to the other workers in the order of their numbers."""
        self.number = number
        self.queue = queue
        self.links = links
        self.process = None
        self.is_ready = self.is_absent = False
        self.replaced = 0
        self._started = 0.0
        self._delay = 0.0
        self._said = DeviceStatus()
        self._asking: asyncio.Future[None] | None = None
        self._pinging: asyncio.Future[None] | None = None

    def fds(self) -> list[int]:
        """The descriptors for BEGIN."""
        return [self.queue, *(link.fileno() for link in self.links)]

    def started(self, process: WorkerProcess) -> None:
        """A process has been started."""
        self.process, self.is_ready = process, False
        self._started = time.monotonic()

    def ended(self) -> float:
        """The process has ended: seconds until another is to be started. They grow while each ends soon."""
        self.process, self.is_ready, self._pinging = None, False, None
        self.replaced += 1
        delay = 0.0 if time.monotonic() - self._started >= LIFE else self._delay
        self._delay = min(max(FIRST_DELAY, 2 * delay), LONGEST_DELAY)
        return delay

    def send(self, kind: Kind, body: Body = b"", fds: Sequence[int] = ()) -> None:
        """As `WorkerProcess.send`, if there is a process."""
        if self.process is not None:
            self.process.send(kind, body, fds)

    async def ask(self, kind: Kind, body: Body = b"", fds: Sequence[int] = (), patience: float = PATIENCE) -> bytes:
        """As `WorkerProcess.ask`."""
        if self.process is None:
            raise WorkerEnded(f"worker {self.number} has ended")
        return await self.process.ask(kind, body, fds, patience)

    def check(self) -> None:
        """Kill a process that has not answered since the last call, or else ask it for an answer."""
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.ensure_future(self._ping())
        elif self.process is not None:
            self.process.kill("hung")

    async def _ping(self) -> None:
        with suppress(ControlError):
            await self.ask(Kind.PING)

    async def status(self, patience: float) -> DeviceStatus:
        """What the process says of itself within `patience` seconds, or else what it said last.

        A process that hangs, or that somebody has stopped, is asked once until it answers.
        """
        if not self.is_ready:
            return self._said
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask_status())
        await asyncio.wait([self._asking], timeout=patience)
        return self._said

    async def _ask_status(self) -> None:
        try:
            self._said = parse_status((await self.ask(Kind.STATUS)).decode(errors="replace"))
        except WorkerEnded:
            pass
        except (ControlError, UapiError) as error:
            if self.process is not None:
                self.process.kill(f"said something wrong: {error}")
