"""Where peers were while they had sessions with a daemon that has ended, for the next one to greet them.

To a peer, its session with the old daemon looks alive: it sends on, and gives up only after 15 s without an answer. So
the next daemon begins a handshake with each (`Device.resume`). A file below /run holds the endpoints: it outlives a
crash, an upgrade and `down` with `up`, which is how many restart, and goes with a reboot. Beside each endpoint is the
time at which the session began, because the file may be days old when it is read: a peer without a session is not
greeted. The file tells where peers are and nothing else that is secret, and only its owner may read it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Final

from wgpy.daemon.files import read_own, replace_own
from wgpy.daemon.leftovers import NAMESPACE, RUN_DIRECTORY
from wgpy.device.device import Device
from wgpy.device.effects import Event, EventKind
from wgpy.device.greetings import may_look_alive
from wgpy.endpoint import Endpoint
from wgpy.errors import KeyFormatError
from wgpy.keys import PublicKey

log = logging.getLogger("wgpy")

SAVE_AFTER: Final = 1.0  # seconds
COST: Final = 100  # times as long as the last save took is waited before the next


class FormerPeers:
    """Keeps the endpoints of one device's peers that have sessions, in a file of its interface's name.

    `clock` tells seconds that go on while no daemon runs, whatever is done to the wall clock.
    """

    def __init__(self, name: str, device: Device, clock: Callable[[], float]) -> None:
        self._path = RUN_DIRECTORY / f"{name}.peers"
        self._device = device
        self._clock = clock
        self._owner: PublicKey | None = None  # our public key, under which the sessions are
        self._sessions: dict[PublicKey, tuple[Endpoint, float]] = {}  # where, and when it began
        self._saving: asyncio.TimerHandle | None = None
        self._took = 0.0

    def restore(self) -> None:
        """Have the device greet those of before; a missing, spoilt or unsafe file changes nothing.

        Nor does the file of an interface that has the same name in another network namespace.
        """
        try:
            noted = json.loads(read_own(self._path))
            if noted["namespace"] != NAMESPACE.stat().st_ino:
                return
            owner = PublicKey.from_base64(noted["public_key"])
            sessions = {
                PublicKey.from_base64(key): (Endpoint.parse(place), float(began))
                for key, (place, began) in noted["peers"].items()
            }
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, KeyFormatError) as error:
            log.warning("%s is not used: %s", self._path, error)
            return
        self._owner, self._sessions = owner, sessions
        self._device.resume(owner, sessions)

    def happened(self, event: Event) -> None:
        """After each event of the device: save soon if a peer's session began or ended, or its endpoint moved."""
        if self._owner != self._device.public_key:
            self._owner = self._device.public_key
            self._sessions.clear()
        before = self._sessions.get(event.public_key)
        if event.kind in (EventKind.HANDSHAKE_ABANDONED, EventKind.KEYS_ERASED):
            self._sessions.pop(event.public_key, None)
        elif event.kind is EventKind.HANDSHAKE_COMPLETED and event.endpoint:
            self._sessions[event.public_key] = event.endpoint.without_source(), self._clock()
        elif event.kind is EventKind.ENDPOINT_MOVED and event.endpoint and before:
            self._sessions[event.public_key] = event.endpoint.without_source(), before[1]
        if before != self._sessions.get(event.public_key) and self._saving is None:
            delay = max(SAVE_AFTER, COST * self._took)
            self._saving = asyncio.get_running_loop().call_later(delay, self.save)

    def save(self) -> None:
        """Write the file now, if anything is to be saved, with those alone that the next daemon would greet."""
        if self._saving is None or self._owner is None:
            return
        self._saving.cancel()
        self._saving = None
        started = time.monotonic()
        now = self._clock()
        self._sessions = {
            key: (place, began)
            for key, (place, began) in self._sessions.items()
            if self._device.knows(key) and may_look_alive(began, now)
        }
        peers = {key.base64(): (str(place), began) for key, (place, began) in self._sessions.items()}
        try:
            namespace = NAMESPACE.stat().st_ino
            noted = {"namespace": namespace, "public_key": self._owner.base64(), "peers": peers}
            replace_own(self._path, json.dumps(noted).encode())
        except OSError as error:
            log.debug("cannot keep where peers are: %s", error)
        self._took = time.monotonic() - started
