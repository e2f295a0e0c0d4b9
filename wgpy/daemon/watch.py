"""Noticing that a file was deleted or replaced, by inotify(7), for which Python has no module."""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

_IN_ATTRIB, _IN_DELETE_SELF, _IN_MOVE_SELF = (
    0x4,
    0x400,
    0x800,
)  # linux/inotify.h; ATTRIB: a change of the link count
_POLL_INTERVAL: Final = 1.0  # seconds, without inotify: fs.inotify.max_user_instances may be 128 or less
_libc: Final = ctypes.CDLL(None)


class FileWatch:
    """Watches a file for deletion, replacement and changed attributes.

    The directory is not watched, because changes to other files in it would wake us.
    """

    def __init__(self, path: Path) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        events = _IN_ATTRIB | _IN_DELETE_SELF | _IN_MOVE_SELF
        self._watches = self._fd >= 0 and _libc.inotify_add_watch(self._fd, os.fsencode(path), events) >= 0

    async def changed(self) -> None:
        """Wait for the next change; if this user may have no more watches, wait for a second instead."""
        if not self._watches:
            await asyncio.sleep(_POLL_INTERVAL)
            return
        loop = asyncio.get_running_loop()
        happened = asyncio.Event()
        loop.add_reader(self._fd, happened.set)
        try:
            await happened.wait()
        finally:
            loop.remove_reader(self._fd)
        with suppress(BlockingIOError):
            while os.read(self._fd, 1 << 14):
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
