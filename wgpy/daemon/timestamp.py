"""Keeping the latest timestamp of a handshake initiation across restarts.

Peers refuse an initiation whose timestamp is not newer than the last one they saw. A machine without a battery-backed
clock may boot with a time in the past, and its peers would refuse it until the clock has caught up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from wgpy.daemon.files import replace_own
from wgpy.daemon.interface import Interface

log: Final = logging.getLogger("wgpy")

FLOOR_FILE: Final = Path("/var/lib/wgpy/timestamp-floor")
SAVE_AFTER: Final = 5.0  # seconds
# seconds of timestamps that may not have been saved: an initiation is reported once answered, or after some 5 s.
MARGIN: Final = 2 * SAVE_AFTER + 1.0


class TimestampFloor:
    """Keeps the lowest timestamp an interface may send in a file that all interfaces share. It only ever rises."""

    def __init__(self, interface: Interface) -> None:
        self._interface = interface
        self._saved = 0
        self._saving: asyncio.TimerHandle | None = None

    def restore(self) -> None:
        """Make the interface's timestamps later than all that this machine has sent; ignore a missing or invalid file.

        If the clock is behind the file, the interface begins after a margin for timestamps that were not saved. That
        beginning is saved at once, for the next process may start before this one has saved any timestamp.
        """
        if not (floor := _read()):
            return
        self._saved = floor
        if time.time_ns() > floor:
            self._interface.timestamp_floor = floor
        else:
            self._interface.timestamp_floor = floor + int(MARGIN * 1e9)
            self.save()

    def handshake(self) -> None:
        """Call this after a handshake, or an initiation without an answer: schedules a save, unless one is."""
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_AFTER, self.save)

    def save(self) -> None:
        """Write the interface's latest timestamp to the file, if it is later than what the file has."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        floor = self._interface.timestamp_floor
        if floor <= max(self._saved, _read()):
            return
        try:
            replace_own(FLOOR_FILE, f"{floor}\n".encode(), 0o644)  # `wgpy doctor` reads it as any user
            self._saved = floor
        except OSError as error:
            log.debug("cannot save the latest timestamp: %s", error)


def _read() -> int:
    try:
        return int(FLOOR_FILE.read_text())
    except (OSError, ValueError):
        return 0
