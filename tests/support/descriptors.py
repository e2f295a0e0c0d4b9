"""Which files this process has open, for tests that must leave none."""

from __future__ import annotations

import gc
import os
from contextlib import suppress


def descriptors() -> dict[int, str]:
    """What each descriptor is open on: a path, or such as socket:[inode].

    Garbage is collected first. Otherwise what earlier tests left in it, which a forked child has too, might be closed
    between two looks.
    """
    gc.collect()
    found = {}
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(FileNotFoundError):  # the listing's own
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found
