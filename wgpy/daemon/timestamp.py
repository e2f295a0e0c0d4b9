"""The latest time this machine has put on an initiation, kept over restarts.

Peers refuse an initiation that is not newer than the last one they saw. A machine without a battery behind its clock
may start in the past, and would be locked out until its clock has caught up.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

from wgpy.device.device import Device

log = logging.getLogger("wgpy")

FLOOR_FILE: Final = Path("/var/lib/wgpy/timestamp-floor")
SAVE_INTERVAL: Final = 5.0  # seconds; as much is added when the floor is read, for what was not saved any more


def restore(device: Device) -> None:
    """Have the device stamp later than this machine ever did. Without a file, or with a spoilt one, nothing is done."""
    try:
        floor = int(FLOOR_FILE.read_text())
    except (OSError, ValueError):
        return
    device.timestamp_floor = floor + int(SAVE_INTERVAL * 1e9)


async def keep(device: Device) -> None:
    """Save the device's floor every few seconds, while it rises."""
    while True:
        await asyncio.sleep(SAVE_INTERVAL)
        save(device)


def save(device: Device) -> None:
    """Raise what is saved to the device's floor; all interfaces of the machine share one file."""
    try:
        saved = int(FLOOR_FILE.read_text())
    except (OSError, ValueError):
        saved = 0
    if device.timestamp_floor <= saved:
        return
    fresh = FLOOR_FILE.with_suffix(f".{os.getpid()}")
    try:
        FLOOR_FILE.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh.write_text(f"{device.timestamp_floor}\n")
        fresh.replace(FLOOR_FILE)
    except OSError as error:
        log.debug("cannot keep the latest timestamp: %s", error)
