"""A tunnel belongs to the process that opened it: in a fork's child it is closed, without a word to anybody outside.

The child shares with its parent what the copied numbers stand for. If it carried packets on, it would seal them with
counters that the parent uses, too; if it closed the tunnel as its owner does, it would end the parent's helper, shut
down the parent's connections, and take the parent's readers out of the epoll instance that both have. So all it does
is to close its copies of the file descriptors.
"""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet

FORKED: Final = "the tunnel belongs to the process that this one was forked from: connect again in this one"


class Abandoned(Protocol):
    """What holds something that a fork copies."""

    def abandon(self) -> None:
        """Close the copies, and leave the event loop alone: called in the child, right after the fork."""


_things: Final[WeakSet[Abandoned]] = WeakSet()


def abandon_in_child(thing: Abandoned) -> None:
    """Have `abandon` called in each child that this process forks by way of Python, for as long as the thing lives."""
    _things.add(thing)


def _in_child() -> None:
    for thing in list(_things):
        thing.abandon()
    _things.clear()


os.register_at_fork(after_in_child=_in_child)
