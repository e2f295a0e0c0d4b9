"""Allowed IPs: which peer may send from an address, and is sent what goes there (paper, 2; kernel allowedips.c)."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)
Network = IPv4Network | IPv6Network

CACHED_ADDRESSES: Final = 4096

_number = int.from_bytes  # asked for once, not in each look-up


class _Family(Generic[T]):
    """The prefixes of one kind of address, by its blocks of so many host bits."""

    __slots__ = ("block_bits", "blocks", "everywhere", "tables")

    def __init__(self, block_bits: int) -> None:
        self.block_bits = block_bits
        # By the number of host bits: owners by network bits.
        self.tables: dict[int, dict[int, T]] = {}
        # By a block's network bits: the host bits to try there, fewest first; what was removed may stay.
        self.blocks: dict[int, tuple[int, ...]] = {}
        # Those of prefixes that hold whole blocks, which are to be tried everywhere.
        self.everywhere: tuple[int, ...] = ()

    def insert(self, host_bits: int, prefix: int, owner: T) -> T | None:
        """Note the owner of a prefix; gives who had it before."""
        table = self.tables.setdefault(host_bits, {})
        before = table.get(prefix)
        table[prefix] = owner
        shift = self.block_bits - host_bits
        if shift >= 0:
            lengths = self.blocks.get(prefix >> shift, self.everywhere)
            if host_bits not in lengths:
                self.blocks[prefix >> shift] = _with(lengths, host_bits)
        elif host_bits not in self.everywhere:
            self.everywhere = _with(self.everywhere, host_bits)
            self.blocks = {block: _with(lengths, host_bits) for block, lengths in self.blocks.items()}
        return before


class AllowedIPs(Generic[T]):
    """Prefixes and their owners; the longest prefix wins.

    The kernel walks a trie bit by bit. In Python a dict look-up costs no more than one step of such a walk, so here
    each prefix length in use has a dict, tried from the longest, and the owners found of late are remembered. Whoever
    sends from ever new addresses only empties that memory, and an address without an owner, whose packets are dropped
    anyway, has no place in it. In a full table most lengths are in use, but few in one block of addresses: each block
    knows which.
    """

    def __init__(self) -> None:
        # By the address's size in bytes; a block is a /16 of IPv4, a /32 of IPv6.
        self._families: dict[int, _Family[T]] = {4: _Family(16), 16: _Family(96)}
        # The same from the owner's side, in order of insertion.
        self._owned: dict[T, dict[tuple[int, int, int], Network]] = {}
        self._recent: dict[bytes, T] = {}

    def insert(self, network: Network, owner: T) -> None:
        """Give `network` to `owner`, as the newest of its prefixes; whoever had it before loses it."""
        place = size, host_bits, prefix = _place(network)
        before = self._families[size].insert(host_bits, prefix, owner)
        if before is not None:
            self._disown(before, place)
        self._owned.setdefault(owner, {})[place] = network
        self._recent.clear()

    def remove(self, network: Network, owner: T) -> None:
        """Take `network` from `owner`; nothing happens when it is not the owner's."""
        place = _place(network)
        if place in self._owned.get(owner, ()):
            self._disown(owner, place)
            self._erase(place)
            self._recent.clear()

    def remove_owner(self, owner: T) -> None:
        """Take all its prefixes from `owner`."""
        for place in self._owned.pop(owner, ()):
            self._erase(place)
        self._recent.clear()

    def lookup(self, address: bytes | memoryview) -> T | None:
        """The owner of the longest prefix that holds `address` (4 or 16 bytes); None when there is none."""
        if type(address) is not bytes:
            address = bytes(address)
        owner = self._recent.get(address)
        if owner is None:
            family, value = self._families[len(address)], _number(address, "big")
            for host_bits in family.blocks.get(value >> family.block_bits, family.everywhere):
                owner = family.tables[host_bits].get(value >> host_bits)
                if owner is not None:
                    if len(self._recent) >= CACHED_ADDRESSES:
                        self._recent.clear()
                    self._recent[address] = owner
                    break
        return owner

    def networks(self, owner: T) -> tuple[Network, ...]:
        """The prefixes of `owner` in the order of their insertion."""
        return tuple(self._owned.get(owner, {}).values())

    def __len__(self) -> int:
        """How many prefixes there are."""
        return sum(map(len, self._owned.values()))

    def _disown(self, owner: T, place: tuple[int, int, int]) -> None:
        places = self._owned[owner]
        del places[place]
        if not places:
            del self._owned[owner]

    def _erase(self, place: tuple[int, int, int]) -> None:
        size, host_bits, prefix = place
        del self._families[size].tables[host_bits][prefix]


@lru_cache(maxsize=1024)
def _with(lengths: tuple[int, ...], another: int) -> tuple[int, ...]:
    """Remembered, so that blocks share it: many have the same lengths."""
    return tuple(sorted({*lengths, another}))


def _place(network: Network) -> tuple[int, int, int]:
    """Where a network is kept: its addresses' size in bytes, its host bits, and its network bits as a number."""
    bits = network.max_prefixlen
    host_bits = bits - network.prefixlen
    return bits // 8, host_bits, int(network.network_address) >> host_bits
