"""Allowed IPs: which peer may send from an address, and is sent what goes there (paper, 2; kernel allowedips.c)."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)
Network = IPv4Network | IPv6Network

CACHED_ADDRESSES: Final = 4096

# By the address's size in bytes, the host bits of a block: /16 of IPv4, /32 of IPv6.
_BLOCK_BITS: Final = {4: 16, 16: 96}


class AllowedIPs(Generic[T]):
    """Prefixes and their owners; the longest prefix wins.

    The kernel walks a trie bit by bit. In Python a dict look-up costs no more than one step of such a walk, so here
    each prefix length in use has a dict, tried from the longest, and the owners found of late are remembered. Whoever
    sends from ever new addresses only empties that memory, and an address without an owner, whose packets are dropped
    anyway, has no place in it. In a full table most lengths are in use, but few in one block of addresses: each block
    knows which.
    """

    def __init__(self) -> None:
        # By the address's size in bytes, then by the number of host bits: owners by network bits.
        self._tables: dict[int, dict[int, dict[int, T]]] = {4: {}, 16: {}}
        # By size, then by a block's network bits: the host bits to try there, fewest first; what was removed may stay.
        self._lengths: dict[int, dict[int, tuple[int, ...]]] = {4: {}, 16: {}}
        # Those of prefixes that hold whole blocks, which are to be tried everywhere.
        self._long: dict[int, tuple[int, ...]] = {4: (), 16: ()}
        # The same from the owner's side, in order of insertion.
        self._owned: dict[T, dict[tuple[int, int, int], Network]] = {}
        self._recent: dict[bytes, T] = {}

    def insert(self, network: Network, owner: T) -> None:
        """Give `network` to `owner`, as the newest of its prefixes; whoever had it before loses it."""
        place = size, host_bits, prefix = _place(network)
        table = self._tables[size].setdefault(host_bits, {})
        if prefix in table:
            self._disown(table[prefix], place)
        table[prefix] = owner
        shift = _BLOCK_BITS[size] - host_bits
        blocks, everywhere = self._lengths[size], self._long[size]
        if shift >= 0:
            lengths = blocks.get(prefix >> shift, everywhere)
            if host_bits not in lengths:
                blocks[prefix >> shift] = _with(lengths, host_bits)
        elif host_bits not in everywhere:
            self._long[size] = _with(everywhere, host_bits)
            self._lengths[size] = {block: _with(lengths, host_bits) for block, lengths in blocks.items()}
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
            value, size = int.from_bytes(address, "big"), len(address)
            tables = self._tables[size]
            for host_bits in self._lengths[size].get(value >> _BLOCK_BITS[size], self._long[size]):
                owner = tables[host_bits].get(value >> host_bits)
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
        del self._tables[size][host_bits][prefix]


@lru_cache(maxsize=1024)
def _with(lengths: tuple[int, ...], another: int) -> tuple[int, ...]:
    """Remembered, so that blocks share it: many have the same lengths."""
    return tuple(sorted({*lengths, another}))


def _place(network: Network) -> tuple[int, int, int]:
    """Where a network is kept: its addresses' size in bytes, its host bits, and its network bits as a number."""
    bits = network.max_prefixlen
    host_bits = bits - network.prefixlen
    return bits // 8, host_bits, int(network.network_address) >> host_bits
