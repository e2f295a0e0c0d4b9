"""The event loop of wgpy's own processes: uvloop if it is installed, and fewer garbage collections."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, Final

# A burst allocates some hundred memoryviews. With Python's default threshold of 700, garbage would be collected at
# almost every burst and take a fifth of the time, without ever finding a cycle.
GARBAGE_THRESHOLD: Final = 50_000


def run_loop(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a coroutine function in a new event loop until it ends, and return its exit status."""
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, *gc.get_threshold()[1:])
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
