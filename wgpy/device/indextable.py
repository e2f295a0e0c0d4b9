"""Random 32-bit indices: how a receiver finds the handshake or session that a datagram belongs to (paper, 5.4).

As in the kernel's peerlookup.c and wireguard-go's device/indextable.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from wgpy.device.keypair import Keypair

P = TypeVar("P")


class IndexTableEntry(NamedTuple, Generic[P]):
    """What an index stands for: a session of the peer, or if `keypair` is None its initiation that awaits an answer."""

    peer: P
    keypair: Keypair | None


def random_index(random: Callable[[int], bytes]) -> int:
    """An index of 32 bits from `random(n)`, which returns n unpredictable bytes."""
    return int.from_bytes(random(4), "little")


class IndexTable(Generic[P]):
    """The indices in use. `draw()` returns the next index to try, of the share of indices that this table may use.

    Indices are random, so that one tells nobody which sessions belong together or what the next one will be.
    """

    def __init__(self, draw: Callable[[], int]) -> None:
        self._draw = draw
        self._entries: dict[int, IndexTableEntry[P]] = {}
        self.get: Callable[[int], IndexTableEntry[P] | None] = self._entries.get
        """What an index stands for; None if it is free."""

    def insert(self, peer: P) -> int:
        """A fresh index for a handshake with `peer`."""
        while (index := self._draw()) in self._entries:
            pass
        self._entries[index] = IndexTableEntry(peer, None)
        return index

    def establish(self, keypair: Keypair) -> None:
        """The handshake with the index of `keypair` has become that session."""
        index = keypair.local_index
        self._entries[index] = IndexTableEntry(self._entries[index].peer, keypair)

    def remove(self, index: int) -> None:
        """Free an index; one that is free already stays so."""
        self._entries.pop(index, None)

    def __len__(self) -> int:
        return len(self._entries)
