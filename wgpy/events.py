"""How a tunnel tells what happens to its peers: in the log, and to whoever asked for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from wgpy.device.effects import DropReason, Event, EventKind
from wgpy.keys import PublicKey

log = logging.getLogger("wgpy")

MOVE_INTERVAL: Final = 1.0  # seconds; a peer may send every packet from another address

# What a refusal is likely to mean.
_REFUSED: Final = {
    DropReason.REPLAYED_INITIATION: "stamped earlier than the last one, as if its clock had been set back, or replayed",
    DropReason.INITIATION_FLOOD: "more than 20 a second, as if several machines had its private key",
}


class Events:
    """Tells of each event, but of a peer that moves again and again its first move, and then the last of each second.

    So a peer cannot fill logs and queues by moving with every packet. `interface` tells the interface's name.
    """

    def __init__(self, interface: Callable[[], str], receiver: Callable[[Event], None] | None) -> None:
        self._interface = interface
        self._receiver = receiver
        self._moved: dict[PublicKey, Event | None] = {}  # by peer that has just moved: its last move since then

    def happened(self, event: Event) -> None:
        """Tell of an event now, or of a move perhaps later. To be called in the event loop."""
        if event.kind is EventKind.ENDPOINT_MOVED:
            if event.public_key in self._moved:
                self._moved[event.public_key] = event
                return
            self._wait_for_moves(event.public_key)
        self._tell(event)

    def close(self) -> None:
        """Tell no moves later."""
        self._moved.clear()

    def _wait_for_moves(self, public_key: PublicKey) -> None:
        self._moved[public_key] = None
        asyncio.get_running_loop().call_later(MOVE_INTERVAL, self._tell_last_move, public_key)

    def _tell_last_move(self, public_key: PublicKey) -> None:
        if move := self._moved.pop(public_key, None):
            self._wait_for_moves(public_key)
            self._tell(move)

    def _tell(self, event: Event) -> None:
        name = self._interface()
        level, why = (logging.WARNING, f": {_REFUSED[event.reason]}") if event.reason else (logging.DEBUG, "")
        log.log(level, "(%s) %s: %s %s%s", name, event.public_key.short(), event.kind, event.endpoint, why)
        if self._receiver is not None:
            try:
                self._receiver(event)
            except Exception:
                log.exception("(%s) on_event failed", name)
