"""Time that passes as fast as there is nothing to do: hours of a tunnel's life in a test of a moment."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from math import inf, nextafter
from typing import Any, Final, TypeVar

T = TypeVar("T")

_BEGIN: Final = 1e9  # seconds since 1970; whoever takes zero for "never" is not misled


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer whenever nothing is ready.

    It does not wait for threads and processes, for which no time passes: use it for what lives in this process.
    """

    def __init__(self) -> None:
        self._now = _BEGIN
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Virtual seconds since 1970: for `Tunnel(clock=loop.time)`."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass. A coroutine does it by `asyncio.sleep`."""
        # A bit later than that, or a timer would still lie in the future by less than a float tells.
        self._now = nextafter(self._now + seconds, inf)


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self._loop.advance(timeout)
        return ready


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
