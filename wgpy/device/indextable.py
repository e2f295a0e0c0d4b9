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


class IndexTable(Generic[P]):
    """The indices in use.

    They are random, so that an index tells nobody which sessions belong together or what the next one will be.
    """

    def __init__(self) -> None:
        self._entries: dict[int, IndexTableEntry[P]] = {}

    def insert(self, peer: P, random: Callable[[int], bytes]) -> int:
        """A fresh index for a handshake with `peer`, from `random(n)`, which returns n unpredictable bytes."""
        while (index := int.from_bytes(random(4), "little")) in self._entries:
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

    def get(self, index: int) -> IndexTableEntry[P] | None:
        """What the index stands for; None if it is free."""
        return self._entries.get(index)

    def __len__(self) -> int:
        return len(self._entries)
