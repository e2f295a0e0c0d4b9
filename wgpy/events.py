"""How a tunnel reports what happens to its peers: to the log, to its receiver, and to whoever waits for events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Final
from weakref import WeakSet

from wgpy.constants import INITIATION_INTERVAL
from wgpy.device.effects import DropReason, Event, EventKind
from wgpy.keys import PublicKey

log: Final = logging.getLogger("wgpy")

MOVE_INTERVAL: Final = 1.0  # seconds; a peer may send every packet from another address
MAX_QUEUED: Final = 10_000  # events that may wait for one subscriber to take them

# What a refusal is likely to mean.
_REFUSED: Final = {
    DropReason.REPLAYED_INITIATION: "stamped earlier than the last one, as if its clock had been set back, or replayed",
    DropReason.INITIATION_FLOOD: f"within {INITIATION_INTERVAL * 1000:g} ms of another; do two machines have its key?",
}


class Events:
    """Passes each event on to the log, to `receiver` and to every subscriber.

    Of a peer that moves again and again, only the first move is passed on at once, and then the last move of each
    second. So a peer cannot fill logs and queues by sending every packet from another address. `interface` returns the
    interface's name.
    """

    def __init__(self, interface: Callable[[], str], receiver: Callable[[Event], None] | None) -> None:
        self._interface = interface
        self._receiver = receiver
        self._moved: dict[PublicKey, Event | None] = {}  # by peer that has just moved: its last move since then
        self._queues: WeakSet[asyncio.Queue[Event | None]] = WeakSet()  # one per subscriber; None is the end
        self._is_closed = False
        self.dropped: int = 0  # events for which a subscriber's queue had no room

    def happened(self, event: Event) -> None:
        """Pass an event on now, or perhaps later if it is a move. Call it in the event loop."""
        if event.kind is EventKind.ENDPOINT_MOVED:
            if event.public_key in self._moved:
                self._moved[event.public_key] = event
                return
            self._wait_for_moves(event.public_key)
        self._pass_on(event)

    def subscribe(self) -> AsyncIterator[Event]:
        """Every event from now on, until `close`. While MAX_QUEUED wait to be taken, newer ones are dropped."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._queues.add(queue)
        if self._is_closed:
            queue.put_nowait(None)

        async def each() -> AsyncIterator[Event]:
            while (event := await queue.get()) is not None:
                yield event

        return each()

    def close(self) -> None:
        """Pass nothing more on: moves that wait are forgotten, and subscribers come to the end."""
        self._moved.clear()
        self._is_closed = True
        for queue in self._queues:
            queue.put_nowait(None)

    def _wait_for_moves(self, public_key: PublicKey) -> None:
        self._moved[public_key] = None
        asyncio.get_running_loop().call_later(MOVE_INTERVAL, self._pass_on_last_move, public_key)

    def _pass_on_last_move(self, public_key: PublicKey) -> None:
        if move := self._moved.pop(public_key, None):
            self._wait_for_moves(public_key)
            self._pass_on(move)

    def _pass_on(self, event: Event) -> None:
        name = self._interface()
        level, why = (logging.WARNING, f": {_REFUSED[event.reason]}") if event.reason else (logging.DEBUG, "")
        log.log(level, "(%s) %s: %s %s%s", name, event.public_key.short(), event.kind, event.endpoint, why)
        for queue in self._queues:
            if queue.qsize() < MAX_QUEUED:
                queue.put_nowait(event)
            else:
                self.dropped += 1
        if self._receiver is not None:
            try:
                self._receiver(event)
            except Exception:
                log.exception("(%s) on_event failed", name)
