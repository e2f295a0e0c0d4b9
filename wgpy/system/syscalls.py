"""unshare(2), setns(2), mount(2) and prctl(2) through libc, because Python 3.11 has none of them."""

from __future__ import annotations

import ctypes
import os
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
_MNT_DETACH: Final = 2
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15

_libc: Final = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move into new namespaces of the kinds in `flags`. Raises OSError."""
    _check(_libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace that `fd` refers to. Raises OSError."""
    _check(_libc.setns(fd, kind))


def mount(source: str, target: str, kind: str = "", flags: int = 0) -> None:
    """Mount `source` on `target`. Raises OSError."""
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), None))


def unmount(target: str) -> None:
    """Detach a mount; what was bind-mounted from it stays. Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH))


def die_with_parent(number: int) -> None:
    """Have the kernel send this process signal `number` when the thread that started it ends. Raises OSError."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0))


def name_process(name: str) -> None:
    """Set the name that `ps -o comm` and `top` show for this process, at most 15 bytes. Raises OSError."""
    _check(_libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
