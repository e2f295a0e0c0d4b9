"""A test body as an unprivileged user, in a network namespace: as for a user without root or capabilities."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wgpy.system.syscalls import CLONE_NEWNS, MS_BIND, MS_PRIVATE, MS_REC, mount, setns, unshare

if TYPE_CHECKING:  # the benchmark of memory does not want pytest in its client
    from tests.support.netns import Namespace

NOBODY: Final = 65534
ROOT: Final = Path(__file__).parents[2]
TUN_DEVICE: Final = os.makedev(10, 200)
MS_MOVE: Final = 0x2000
MS_RDONLY: Final = 1
MS_REMOUNT: Final = 0x20


def as_nobody(namespace: Namespace, main: Callable[[], Coroutine[Any, Any, None]], *, tun_mode: int = 0o666) -> None:
    """Run a coroutine function in a child process as nobody; what it raises fails the test here."""

    def body() -> None:
        become_nobody(tun_mode)
        asyncio.run(main())

    namespace.call(body)


def let_pass(directory: Path) -> None:
    """Let everybody reach a test's directory: it and the three above it, of pytest's and of a process of pytest-xdist.

    None of them loses a right, for one may be the system's /tmp.
    """
    for place in (directory, *directory.parents[:3]):
        place.chmod(stat.S_IMODE(place.stat().st_mode) | 0o055)


def become_nobody(tun_mode: int = 0o666, *, read_only: bool = False) -> None:
    """Give up all privileges. /dev/net/tun is as udev opens it to everybody, in a mount namespace of our own.

    `read_only`: no file system can be written to any more but /proc, /sys and /dev.
    """
    leave_chroot()
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", "/mnt", "tmpfs")
    os.mknod("/mnt/tun", stat.S_IFCHR | 0o600, TUN_DEVICE)
    os.chmod("/mnt/tun", tun_mode)
    mount("/mnt/tun", "/dev/net/tun", flags=MS_BIND)
    _open_to_all(Path(sys.base_prefix), ROOT)
    if read_only:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            place = line.split()[1]
            if not place.startswith(("/proc", "/sys", "/dev")):
                with suppress(OSError):  # one that another hides
                    mount("none", place, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.environ["HOME"] = "/nonexistent"
    os.chdir("/")


def leave_chroot() -> None:
    """Go to a mount namespace whose root is what is ours: in a chroot no user namespace may be made (unshare(2)).

    As switch_root(8) does it. The working directory is that root then.
    """
    unshare(CLONE_NEWNS)
    chroot = os.open("/", os.O_PATH)
    with open("/proc/self/ns/mnt") as namespace:
        setns(namespace.fileno(), CLONE_NEWNS)  # and with it to the root it has
    os.fchdir(chroot)
    if not os.path.samestat(os.stat("."), os.stat("/")):
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        mount(".", "/", flags=MS_MOVE)
        os.chroot(".")
    os.close(chroot)


def _open_to_all(*directories: Path) -> None:
    """Let everybody reach directories that lie in a closed one, such as root's home."""
    kept = {}
    for number, directory in enumerate(directories):
        for parent in reversed(directory.parents):
            if not parent.stat().st_mode & 0o001:
                place = Path(f"/mnt/{number}")
                place.mkdir()
                mount(str(directory), str(place), flags=MS_BIND | MS_REC)
                kept[directory] = parent, place
                break
    for parent in {parent for parent, _ in kept.values()}:
        mount("tmpfs", str(parent), "tmpfs")
        parent.chmod(0o755)
    for directory, (_, place) in kept.items():
        directory.mkdir(parents=True)
        mount(str(place), str(directory), flags=MS_BIND | MS_REC)
