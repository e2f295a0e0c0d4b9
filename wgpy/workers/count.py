"""How many workers an interface gets."""

from __future__ import annotations

import os
import resource
from typing import Final

from wgpy.errors import ControlError, SocketError
from wgpy.net.binding import bind_port
from wgpy.net.queues import QUEUES

MOST_BY_ITSELF: Final = 8

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
    return max(1, min(MOST_BY_ITSELF, len(os.sched_getaffinity(0)), peers))


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
