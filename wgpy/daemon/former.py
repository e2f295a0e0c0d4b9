"""Where peers were while they had sessions with a daemon that has ended, for the next one to greet them.

To a peer, its session with the old daemon looks alive: it sends on, and gives up only after 15 s without an answer. So
the next daemon begins a handshake with each (`Device.resume`). A file below /run holds the endpoints: it outlives a
crash, an upgrade and `down` with `up`, which is how many restart, and goes with a reboot. It tells where peers are and
nothing else that is secret, and only its owner may read it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Final

from wgpy.daemon.files import read_own, replace_own
from wgpy.daemon.leftovers import RUN_DIRECTORY
from wgpy.device.device import Device
from wgpy.device.effects import Event, EventKind
from wgpy.endpoint import Endpoint
from wgpy.errors import KeyFormatError
from wgpy.keys import PublicKey

log = logging.getLogger("wgpy")

SAVE_AFTER: Final = 1.0  # seconds
COST: Final = 20  # times as long as the last save took is waited before the next


class FormerPeers:
    """Keeps the endpoints of one device's peers that have sessions, in a file of its interface's name."""

    def __init__(self, name: str, device: Device) -> None:
        self._path = RUN_DIRECTORY / f"{name}.peers"
        self._device = device
        self._owner: PublicKey | None = None  # our public key, under which the sessions are
        self._endpoints: dict[PublicKey, Endpoint] = {}
        self._saving: asyncio.TimerHandle | None = None
        self._took = 0.0

    def restore(self, now: float) -> None:
        """Have the device greet those of before; a missing, spoilt or unsafe file changes nothing."""
        try:
            noted = json.loads(read_own(self._path))
            owner = PublicKey.from_base64(noted["public_key"])
            peers = {PublicKey.from_base64(key): Endpoint.parse(place) for key, place in noted["peers"].items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError, KeyFormatError) as error:
            log.warning("%s is not used: %s", self._path, error)
            return
        self._owner, self._endpoints = owner, peers
        self._device.resume(owner, peers, now)

    def happened(self, event: Event) -> None:
        """After each event of the device: save soon if a peer's session or endpoint came, moved or went."""
        if self._owner != self._device.public_key:
            self._owner = self._device.public_key
            self._endpoints.clear()
        before = self._endpoints.get(event.public_key)
        if event.kind in (EventKind.HANDSHAKE_ABANDONED, EventKind.KEYS_ERASED):
            self._endpoints.pop(event.public_key, None)
        elif event.kind in (EventKind.HANDSHAKE_COMPLETED, EventKind.ENDPOINT_MOVED) and event.endpoint:
            self._endpoints[event.public_key] = event.endpoint.without_source()
        if before != self._endpoints.get(event.public_key) and self._saving is None:
            delay = max(SAVE_AFTER, COST * self._took)
            self._saving = asyncio.get_running_loop().call_later(delay, self.save)

    def save(self) -> None:
        """Write the file now, if anything is to be saved; peers that were removed are left out."""
        if self._saving is None or self._owner is None:
            return
        self._saving.cancel()
        self._saving = None
        started = time.monotonic()
        self._endpoints = {key: place for key, place in self._endpoints.items() if self._device.knows(key)}
        peers = {key.base64(): str(place) for key, place in self._endpoints.items()}
        try:
            replace_own(self._path, json.dumps({"public_key": self._owner.base64(), "peers": peers}).encode())
        except OSError as error:
            log.debug("cannot keep where peers are: %s", error)
        self._took = time.monotonic() - started
