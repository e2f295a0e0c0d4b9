"""The latest time this machine has put on an initiation, kept over restarts.

Peers refuse an initiation that is not newer than the last one they saw. A machine without a battery behind its clock
may start in the past, and would be locked out until its clock has caught up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from wgpy.daemon.files import replace_own
from wgpy.device.device import Device

log = logging.getLogger("wgpy")

FLOOR_FILE: Final = Path("/var/lib/wgpy/timestamp-floor")
SAVE_AFTER: Final = 5.0  # seconds
# What may not have been saved: an initiation is told of when it is answered, or not for five seconds and a little.
MARGIN: Final = 2 * SAVE_AFTER + 1.0


class TimestampFloor:
    """Keeps one device's floor in a file that all interfaces of the machine share, and that only rises."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._saved = 0
        self._saving: asyncio.TimerHandle | None = None

    def restore(self) -> None:
        """Have the device stamp later than this machine ever did; a missing or spoilt file changes nothing.

        A clock that is behind gets a margin for what was not saved any more. One that is not is later than that by
        itself, and with the margin a daemon killed and started again would stamp the same twice.
        """
        if floor := _read():
            margin = int(MARGIN * 1e9) if time.time_ns() <= floor else 0
            self._device.timestamp_floor = self._saved = floor + margin

    def handshake(self) -> None:
        """After word of a handshake: save soon, once for many."""
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_AFTER, self.save)

    def save(self) -> None:
        """Raise what the file says to the device's floor, if something was stamped since the last time."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        floor = self._device.timestamp_floor
        if floor <= max(self._saved, _read()):
            return
        try:
            replace_own(FLOOR_FILE, f"{floor}\n".encode(), 0o644)  # `wgpy doctor` reads it, as anybody
            self._saved = floor
        except OSError as error:
            log.debug("cannot keep the latest timestamp: %s", error)


def _read() -> int:
    try:
        return int(FLOOR_FILE.read_text())
    except (OSError, ValueError):
        return 0
