"""Telling systemd that the daemon is ready, alive or stopping, by sd_notify(3) and sd_watchdog_enabled(3).

Does nothing unless the environment asks for it. The variables are then removed, so that no hook notifies systemd, too.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping
from contextlib import suppress


class Notifier:
    """Sends one-line states to the service manager, if it asked for them."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._path = environment.pop("NOTIFY_SOCKET", "")
        interval = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        asked = interval.isdecimal() and pid in ("", str(os.getpid()))
        self.watchdog_interval: float = int(interval) / 1e6 if asked else 0.0  # seconds; 0 if there is no watchdog

    def say(self, state: str) -> None:
        """Send a state, such as READY=1. If nobody receives it, that is ignored."""
        if not self._path.startswith(("/", "@")):
            return
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)

    async def keep_alive(self, check: Callable[[], None] = lambda: None) -> None:
        """Tell the watchdog twice per interval that the event loop runs, and call `check`.

        Returns at once if there is no watchdog.
        """
        while self._path and self.watchdog_interval:
            self.say("WATCHDOG=1")
            check()
            await asyncio.sleep(self.watchdog_interval / 2)
