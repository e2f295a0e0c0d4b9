"""A tunnel belongs to the process that opened it; in a forked child it is closed, and nobody outside notices.

The child shares its file descriptors and its session keys with the parent. If it carried packets, it would seal them
with counters that the parent uses as well. If it closed the tunnel the usual way, it would end the parent's helper,
shut down the parent's connections, and remove the parent's readers from the epoll instance that both share. So the
child only closes its copies of the file descriptors.
"""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet

FORKED: Final = "the tunnel belongs to the process that this one was forked from: connect again in this one"


class Abandoned(Protocol):
    """An object that holds file descriptors or keys, which a fork copies."""

    def abandon(self) -> None:
        """Close the copies and leave the event loop alone. Called in the child right after the fork."""


_things: Final[WeakSet[Abandoned]] = WeakSet()


def abandon_in_child(thing: Abandoned) -> None:
    """Call `thing.abandon()` in every child that `os.fork` makes while `thing` is alive."""
    _things.add(thing)


def _in_child() -> None:
    for thing in list(_things):
        thing.abandon()
    _things.clear()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_in_child)
