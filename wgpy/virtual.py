"""An asyncio loop in virtual time: a test runs through hours of a tunnel in a moment."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from math import inf, nextafter
from typing import Any, Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_BEGIN: Final = 1e6  # seconds: some code takes zero for "never"; for 97 days a float still resolves nanoseconds


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer whenever nothing is ready.

    It does not wait for threads or other processes, so use it only for code that runs in the loop alone. Time stands
    still while something is ready, so a task that polls has to sleep for more than 0 seconds.
    """

    def __init__(self) -> None:
        self._now = _BEGIN
        super().__init__(_Jumping(self))
        self.advance(0.0)

    def time(self) -> float:
        """Virtual seconds since 1970: for `Tunnel(clock=loop.time)`."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass. In a coroutine, use `asyncio.sleep` instead."""
        self._now += seconds
        # A timer is due when it is earlier than now plus this (BaseEventLoop._run_once). asyncio's own resolution, a
        # nanosecond, adds nothing to a large float, and a timer due exactly now would never fire.
        self._clock_resolution = nextafter(self._now, inf) - self._now

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As in every loop; a delay too short for the clock is extended to the shortest that it can represent."""
        when = self._now + delay
        if delay > 0:
            when = max(when, nextafter(self._now, inf))  # otherwise a task that polls would stop time
        return self.call_at(when, callback, *args, context=context)


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
