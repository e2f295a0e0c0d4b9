"""Telling systemd how the daemon is: ready, alive, stopping. The protocol is sd_notify(3) and sd_watchdog_enabled(3).

Only who is asked by the environment does it; the request is taken out of the environment, lest a hook answers it too.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress


class Notifier:
    """Says one-line states to whoever started this process and asked for them; otherwise does nothing."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._path = environment.pop("NOTIFY_SOCKET", "")
        interval = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        asked = interval.isdecimal() and pid in ("", str(os.getpid()))
        self.watchdog_interval = int(interval) / 1e6 if asked else 0.0  # seconds; 0: nobody watches

    def say(self, state: str) -> None:
        """Send a state, such as READY=1. Whoever does not listen misses it: it is no error of the daemon."""
        if not self._path.startswith(("/", "@")):
            return
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)

    async def keep_alive(self) -> None:
        """Say that the event loop still turns, twice in every interval of the watchdog; for ever, if one watches."""
        while self._path and self.watchdog_interval:
            self.say("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_interval / 2)
