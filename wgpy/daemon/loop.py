"""The event loop of a process that is wgpy's own: uvloop where it is installed, and few garbage collections."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, Final

# A burst is some hundred views of its packets: Python's 700 would have it look for cycles, of which there are none,
# at almost every burst, a fifth of the time.
GARBAGE_THRESHOLD: Final = 50_000


def run_loop(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a coroutine function to its end, in a loop of its own, and return its exit status."""
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, *gc.get_threshold()[1:])
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
