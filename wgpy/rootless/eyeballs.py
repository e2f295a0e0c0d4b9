"""Happy eyeballs (RFC 8305): several addresses of one host, of which the first that answers is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import zip_longest
from typing import Final, TypeVar

from wgpy.errors import TunnelClosedError

T = TypeVar("T")
A = TypeVar("A")

DELAY: Final = 0.25  # seconds until the next address is tried beside the last (RFC 8305, 5)


def interleaved(addresses: Sequence[A], kind: Callable[[A], object]) -> list[A]:
    """The same addresses, kinds by turns, beginning with the kind of the first (RFC 8305, 4)."""
    groups: dict[object, list[A]] = {}
    for address in addresses:
        groups.setdefault(kind(address), []).append(address)
    return [each for turn in zip_longest(*groups.values()) for each in turn if each is not None]


async def first_of(
    addresses: Sequence[A],
    attempt: Callable[[A], Awaitable[T]],
    drop: Callable[[T], None],
    delay: float | None = DELAY,
) -> T:
    """Try addresses in order, and return what the first attempt that succeeds returns; `drop` gets that of others.

    The next one begins when the last has failed, or after `delay` seconds (None: only when it has failed).
    Raises OSError of the last attempt that failed, TunnelClosedError at once.
    """
    waiting: set[asyncio.Task[T]] = set()
    left = list(reversed(addresses))
    failure = OSError("no address to connect to")
    try:
        while left or waiting:
            if len(left) == 1 and not waiting:  # nothing goes on beside it
                return await attempt(left.pop())
            if left:
                waiting.add(asyncio.create_task(_task(attempt(left.pop()))))
            done, _ = await asyncio.wait(waiting, timeout=delay if left else None, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    waiting.discard(task)
                    return task.result()
                waiting.discard(task)
                if not isinstance(error, OSError) or isinstance(error, TunnelClosedError):
                    raise error
                failure = error
        raise failure
    finally:
        for task in waiting:
            task.cancel()
            task.add_done_callback(lambda done: _lost(done, drop))
        if waiting:
            await asyncio.wait(waiting)


async def _task(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _lost(task: asyncio.Task[T], drop: Callable[[T], None]) -> None:
    if not task.cancelled() and task.exception() is None:
        drop(task.result())
