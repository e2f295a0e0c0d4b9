"""A file of the peers that have sessions, so that the next daemon can start a handshake with each of them.

When a daemon ends, its peers still believe in their sessions: they go on sending, and notice only after 15 s without an
answer. So the next daemon starts a handshake with each of them (`Device.resume`). The file is below /run: it survives a
crash, an upgrade, and `down` followed by `up`, but not a reboot. It stores when each session began, because the file
may be days old when it is read, and a peer whose session has expired needs no handshake. It holds the peers' public
keys and endpoints but no secret keys, and only its owner may read it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Final

from wgpy.daemon.files import RUN_DIRECTORY, read_own, replace_own
from wgpy.daemon.interface import Interface, Sessions
from wgpy.daemon.leftovers import NAMESPACE
from wgpy.device.effects import Event, EventKind
from wgpy.device.resumption import may_look_alive
from wgpy.endpoint import Endpoint
from wgpy.errors import KeyFormatError
from wgpy.keys import PublicKey

log: Final = logging.getLogger("wgpy")

SAVE_AFTER: Final = 1.0  # seconds
COST: Final = 100  # a save is delayed by this many times what the last one took, so that saving takes at most 1%


class SessionFile:
    """Keeps the endpoints of an interface's peers with sessions in /run/wgpy/NAME.peers.

    `clock` returns seconds that also pass while no daemon runs, unaffected by changes to the wall clock.
    """

    def __init__(self, interface: Interface, clock: Callable[[], float]) -> None:
        self._path = RUN_DIRECTORY / f"{interface.name}.peers"
        self._interface = interface
        self._clock = clock
        self._owner: PublicKey | None = None  # our public key in these sessions
        self._sessions: dict[PublicKey, tuple[Endpoint, float]] = {}  # endpoint, and when the session began
        self._saving: asyncio.TimerHandle | None = None
        self._took = 0.0

    def restore(self) -> None:
        """Read the sessions of the daemon before this one.

        A file that is missing, invalid or unsafe is ignored, as is that of an interface with the same name in another
        network namespace.
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
            log.warning("ignoring %s: %s", self._path, error)
            return
        self._owner, self._sessions = owner, sessions

    def known(self) -> Sessions | None:
        """The peers that have sessions as far as is known, for `Interface.sessions`."""
        return (self._owner, self._sessions) if self._owner else None

    def happened(self, event: Event) -> None:
        """Call this with every event of the interface: schedules a save if a session began, ended or moved."""
        if self._owner != self._interface.public_key:
            self._owner = self._interface.public_key
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
        """Write the file now if anything has changed, with the sessions that the next daemon would resume."""
        if self._saving is None or self._owner is None:
            return
        self._saving.cancel()
        self._saving = None
        started = time.monotonic()
        now = self._clock()
        self._sessions = {
            key: (place, began)
            for key, (place, began) in self._sessions.items()
            if self._interface.knows(key) and may_look_alive(began, now)
        }
        peers = {key.base64(): (str(place), began) for key, (place, began) in self._sessions.items()}
        try:
            namespace = NAMESPACE.stat().st_ino
            noted = {"namespace": namespace, "public_key": self._owner.base64(), "peers": peers}
            replace_own(self._path, json.dumps(noted).encode())
        except OSError as error:
            log.debug("cannot save sessions: %s", error)
        self._took = time.monotonic() - started
