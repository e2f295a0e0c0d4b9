"""How many workers an interface gets."""

from __future__ import annotations

import os
from typing import Final

from wgpy.errors import SocketError
from wgpy.net.binding import bind_port

MOST_BY_ITSELF: Final = 8

Workers = int | str
"""A number of workers, or "auto"."""


def number_of_workers(wanted: Workers, peers: int) -> int:
    """A worker for each core that this process may use, up to 8, but no more than peers; or as many as are wanted."""
    if isinstance(wanted, int):
        return wanted
    return max(1, min(MOST_BY_ITSELF, len(os.sched_getaffinity(0)), peers))


def why_one(workers: int) -> str:
    """Why this kernel allows only one worker; empty if it can sort a port's datagrams among so many."""
    try:
        for sockets in bind_port(0, workers=workers):
            for sock in sockets:
                sock.close()
    except SocketError as error:
        return str(error)
    return ""
