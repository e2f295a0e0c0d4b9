"""How many workers an interface gets."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Final

from wgpy.errors import ControlError, SocketError
from wgpy.net.binding import bind_port
from wgpy.net.queues import QUEUES

MOST_BY_ITSELF: Final = 8
CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUPS: Final = Path("/proc/self/cgroup")

# Descriptors of control. For each worker: its sockets in both families, twice while the port changes; its queue of the
# TUN, its channel, its standard error, its process. And for each two workers, two ends.
_OF_A_WORKER: Final = 2 * 2 * QUEUES + 4
_OTHERS: Final = 256  # the loop, files, connections, hooks

Workers = int | str
"""A number of workers, or "auto"."""


def number_of_workers(wanted: Workers, peers: int) -> int:
    """A worker for each core that this process may use, up to 8, but no more than peers; or as many as are wanted."""
    if isinstance(wanted, int):
        return wanted
    return max(1, min(MOST_BY_ITSELF, cores(), peers))


def cores() -> int:
    """How many cores this process may use: those of its affinity, but no more than containers' or systemd's quota.

    The quotas are those of its control group and the ones around it (cgroup v2, cpu.max), rounded up.
    """
    found = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        lines = OWN_CGROUPS.read_text().splitlines()
        own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
        for group in (CGROUPS / own, *(CGROUPS / own).parents):
            with suppress(FileNotFoundError):  # the root has none
                quota, period = (group / "cpu.max").read_text().split()
                if quota != "max":
                    found = min(found, ceil(int(quota) / int(period)))
    return max(1, found)


def make_room(workers: int) -> None:
    """Raise this process's soft limit of open files to what so many workers need. Raises ControlError."""
    needed = workers * (workers - 1 + _OF_A_WORKER) + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except ValueError:
        raise ControlError(
            f"{workers} workers need {needed} open files, and the limit is {hard}: raise it (`ulimit -Hn`, or systemd's"
            " LimitNOFILE), or use fewer workers"
        ) from None


def why_one(workers: int) -> str:
    """Why this kernel allows only one worker; empty if it can sort a port's datagrams among so many."""
    try:
        for sockets in bind_port(0, workers=workers):
            for sock in sockets:
                sock.close()
    except SocketError as error:
        return str(error)
    return ""
