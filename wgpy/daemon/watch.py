"""Word of changes in a directory, by inotify(7), of which Python has nothing."""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

_IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x40, 0x80, 0x100, 0x200  # linux/inotify.h
_WITHOUT: Final = 1.0  # seconds; fs.inotify.max_user_instances is 128, or less
_libc: Final = ctypes.CDLL(None)


class DirectoryWatch:
    """Tells that files of a directory came, went or were replaced."""

    def __init__(self, directory: Path) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        events = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
        self._watches = self._fd >= 0 and _libc.inotify_add_watch(self._fd, os.fsencode(directory), events) >= 0

    async def changed(self) -> None:
        """Wait for a change since the last one told; for a while, if this user may have no more watches."""
        if not self._watches:
            await asyncio.sleep(_WITHOUT)
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
