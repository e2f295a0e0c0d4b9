"""What other threads leave for the next tick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def drained(queue: SimpleQueue[T]) -> Iterator[T]:
    """Take everything that is in a queue now."""
    with suppress(Empty):
        while True:
            yield queue.get_nowait()
