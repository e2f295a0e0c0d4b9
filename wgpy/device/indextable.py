"""Random 32-bit indices for handshakes and keypairs: how a receiver finds what a datagram belongs to (paper, 5.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class IndexTable(Generic[T]):
    """Indices in use and what each stands for.

    They are random, so that an index tells nobody which sessions belong together or what the next will be; the kernel
    draws them likewise (peerlookup.c).
    """

    def __init__(self) -> None:
        self._entries: dict[int, T] = {}

    def insert(self, entry: T, random: Callable[[int], bytes]) -> int:
        """Give `entry` a fresh index, from `random(n)`: n unpredictable bytes."""
        while (index := int.from_bytes(random(4), "little")) in self._entries:
            pass
        self._entries[index] = entry
        return index

    def replace(self, index: int, entry: T) -> None:
        """A handshake became a keypair: its index now stands for that."""
        self._entries[index] = entry

    def remove(self, index: int) -> None:
        """Free an index; one that is free already stays so."""
        self._entries.pop(index, None)

    def get(self, index: int) -> T | None:
        """What the index stands for; None for a free one."""
        return self._entries.get(index)

    def __len__(self) -> int:
        return len(self._entries)
