"""The gateway's process: an event loop around `Gateway.tick`, notices of the kernel, and the handler."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, nullcontext, suppress
from functools import partial
from typing import Any, Final

from wgpy.daemon.events import Log
from wgpy.daemon.notify import Notifier
from wgpy.errors import NetworkError
from wgpy.gateway.enforcement.dataplane import DataPlane
from wgpy.gateway.enforcement.nft import Firewall
from wgpy.gateway.enforcement.notices import Changes, Notices
from wgpy.gateway.policy.portal import Service as PortalService
from wgpy.gateway.service.ask import MOST, ask
from wgpy.gateway.service.certificates import keep_judging
from wgpy.gateway.service.directories import keep_checking
from wgpy.gateway.service.flow_log import FlowLog
from wgpy.gateway.service.gateway import Gateway
from wgpy.gateway.service.live import Question
from wgpy.gateway.service.metrics import GatewayMetrics
from wgpy.gateway.store import endpoint, nodes
from wgpy.gateway.store.database import Database

INTERVAL: Final = 0.5  # seconds between ticks, unless something happens
LOOK: Final = 0.1  # seconds: a change of the store is noticed at the latest after these
Beside = Callable[[Gateway], AbstractAsyncContextManager[None]]


def boottime() -> float:
    """CLOCK_BOOTTIME, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def run(
    database: Database,
    connection_log: Log | None = None,
    metrics_at: str = "",
    beside: Beside | None = None,
    flows: Log | None = None,
    portal: PortalService | None = None,
    interface: str = "",
) -> None:
    """Run the gateway until SIGTERM or SIGINT. The interface, the table and sessions stay. Raises WgpyError.

    What is `beside` it, the web server, runs in the same loop for as long as the gateway does, and clients find it at
    `portal`. `flows` is where the flow log goes. `interface` is what the interface is called on this host, if that
    is not what the endpoint says.
    """
    with database.read() as connection:
        settings = endpoint.find(connection)
    firewall = Firewall(interface or settings.interface, settings.port)
    with (
        database.running() as tell,
        closing(Notices(settings.port)) as notices,
        closing(Changes(firewall.name)) as changes,
        ThreadPoolExecutor(1) as thread,
    ):
        write = partial(_write, connection_log)
        with database.change("gateway") as change:
            nodes.arrive(change, interface)
        gateway = Gateway(
            database,
            firewall,
            DataPlane(),
            clock=boottime,
            wall=database.clock,
            write=write,
            portal=portal,
            interface=interface,
        )
        flow_log = FlowLog(gateway, database.clock, partial(_write, flows)) if flows else None
        tell(gateway.ailment)
        metrics = GatewayMetrics(gateway, firewall, metrics_at, flow_log) if metrics_at else None
        if metrics:
            await metrics.start()
        try:
            async with (
                beside(gateway) if beside else nullcontext(),
                _beside(keep_judging(database, database.clock)),
                _beside(keep_checking(database)),
            ):
                await Service(gateway, firewall, notices, changes, thread, tell, flow_log).run()
        finally:
            if metrics:
                metrics.close()


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do some work for as long as the block runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _write(file: Log | None, entry: dict[str, Any]) -> None:
    if file is not None:
        file.write(json.dumps(entry) + "\n")


class Service:
    """The loop. All of the gateway runs in one thread, one step after another; the handlers run beside it."""

    def __init__(
        self,
        gateway: Gateway,
        firewall: Firewall,
        notices: Notices,
        changes: Changes,
        thread: ThreadPoolExecutor,
        tell: Callable[[str], None],
        flow_log: FlowLog | None,
    ) -> None:
        self._gateway, self._notices, self._changes, self._thread = gateway, notices, changes, thread
        self._firewall, self._flow_log = firewall, flow_log
        self._tell = tell
        self._told = gateway.ailment
        self._due = asyncio.Event()
        self._stopping = False
        self._handlers = asyncio.Semaphore(MOST)
        self._asking: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop, notifier = asyncio.get_running_loop(), Notifier()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        await loop.run_in_executor(self._thread, self._gateway.start)
        loop.add_reader(self._notices, self._noticed)
        loop.add_reader(self._changes, self._changed)
        alive = asyncio.create_task(notifier.keep_alive())
        self._tell_ailment()
        notifier.say("READY=1")
        try:
            while not self._stopping:
                self._due.clear()
                await loop.run_in_executor(self._thread, self._gateway.tick)
                self._tell_ailment()
                self._ask()
                await self._log_flows()
                await self._pause()
        finally:
            notifier.say("STOPPING=1")
            for source in (self._notices, self._changes):
                loop.remove_reader(source)
            if self._flow_log:
                self._flow_log.close()
            for task in (alive, *self._asking):
                task.cancel()
            await asyncio.gather(alive, *self._asking, return_exceptions=True)

    def _tell_ailment(self) -> None:
        if self._told != self._gateway.ailment:
            self._told = self._gateway.ailment
            self._tell(self._told)

    async def _log_flows(self) -> None:
        if not self._flow_log:
            return
        self._flow_log.follow()
        if self._flow_log.is_due:
            loop = asyncio.get_running_loop()
            with suppress(NetworkError):  # which the next tick tells
                unlogged = await loop.run_in_executor(self._thread, self._firewall.unlogged)
                self._flow_log.tell_lost(unlogged + self._notices.lost)

    async def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + INTERVAL
        while not self._due.is_set() and loop.time() < end:
            try:
                async with asyncio.timeout(LOOK):
                    await self._due.wait()
            except TimeoutError:
                if await loop.run_in_executor(self._thread, self._gateway.is_behind):
                    return

    def _stop(self) -> None:
        self._stopping = True
        self._due.set()

    def _noticed(self) -> None:
        noticed = self._notices.read()
        if self._flow_log:
            self._flow_log.deny(noticed.denied)
        if noticed.clients:
            self._gateway.notice(noticed.clients)
            self._due.set()

    def _changed(self) -> None:
        self._gateway.suspect(self._changes.read())
        self._due.set()

    def _ask(self) -> None:
        questions, self._gateway.questions = self._gateway.questions, []
        for question in questions:
            task = asyncio.create_task(self._answer(question))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _answer(self, question: Question) -> None:
        async with self._handlers:
            self._gateway.answer(question.session, await ask(question))
        self._due.set()
