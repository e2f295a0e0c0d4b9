"""Allowed IPs: the peer that packets to an address are sent to and received from (paper, 2; kernel allowedips.c)."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)
Network = IPv4Network | IPv6Network

_PLACE: Final = 0xFFFF  # of a block: the last bits of its number

_from_bytes = int.from_bytes  # looked up once, not with each packet


class _Family(Generic[T]):
    """The prefixes of one address family, in blocks of so many host bits."""

    __slots__ = ("_numbers", "block_bits", "plan_of", "plans", "tables")

    def __init__(self, block_bits: int) -> None:
        self.block_bits = block_bits
        # By the number of host bits: owners by network bits.
        self.tables: dict[int, dict[int, T]] = {}
        # The host bits to try, fewest first; what was removed may stay. All have what the first has: those of prefixes
        # that hold whole blocks.
        self.plans: list[tuple[int, ...]] = [()]
        self._numbers: dict[tuple[int, ...], int] = {(): 0}
        # By a block's place: its plan. Those of IPv6 that have the same place share one.
        self.plan_of = array("I", bytes(4 * (_PLACE + 1)))

    def insert(self, host_bits: int, prefix: int, owner: T) -> T | None:
        """Set the owner of a prefix; returns the one before."""
        table = self.tables.setdefault(host_bits, {})
        before = table.get(prefix)
        table[prefix] = owner
        shift = self.block_bits - host_bits
        if shift >= 0:
            place = prefix >> shift & _PLACE
            lengths = self.plans[self.plan_of[place]]
            if host_bits not in lengths:
                self.plan_of[place] = self._number(_with(lengths, host_bits))
        elif host_bits not in self.plans[0]:
            self.plans = [_with(plan, host_bits) for plan in self.plans]
            self._numbers = {plan: number for number, plan in enumerate(self.plans)}
        return before

    def _number(self, plan: tuple[int, ...]) -> int:
        if plan not in self._numbers:
            self._numbers[plan] = len(self.plans)
            self.plans.append(plan)
        return self._numbers[plan]


class AllowedIPs(Generic[T]):
    """Prefixes and their owners; the longest prefix wins.

    The kernel walks a trie bit by bit. In Python a dict look-up costs no more than one step of such a walk, so here
    each prefix length in use has a dict, tried from the longest. In a full table most lengths are in use, but few in
    one block of addresses: each block has a plan, found in an array, because a dict as large would be out of the
    processor's caches.
    """

    def __init__(self) -> None:
        # By the address's size in bytes; a block is a /16 of IPv4, a /32 of IPv6.
        self._families: dict[int, _Family[T]] = {4: _Family(16), 16: _Family(96)}
        # The same from the owner's side, in order of insertion.
        self._owned: dict[T, dict[tuple[int, int, int], Network]] = {}
        # What was found last: most packets go where the last one came from, or come from where it went.
        self._latest = b""
        self._latest_owner: T | None = None

    def insert(self, network: Network, owner: T) -> None:
        """Give `network` to `owner`, after its other prefixes, and take it from the owner before."""
        self._latest, self._latest_owner = b"", None
        place = size, host_bits, prefix = _place(network)
        before = self._families[size].insert(host_bits, prefix, owner)
        if before is not None:
            self._disown(before, place)
        self._owned.setdefault(owner, {})[place] = network

    def remove(self, network: Network, owner: T) -> None:
        """Take `network` from `owner`; a network of another owner is left alone."""
        place = _place(network)
        if place in self._owned.get(owner, ()):
            self._disown(owner, place)
            self._erase(place)

    def change_owner(self, owner: T, successor: T) -> None:
        """Give all prefixes of `owner` to `successor`, in their order."""
        for network in self.networks(owner):
            self.insert(network, successor)

    def remove_owner(self, owner: T) -> None:
        """Take all prefixes from `owner`."""
        for place in self._owned.pop(owner, ()):
            self._erase(place)

    def lookup(self, address: bytes | memoryview) -> T | None:
        """The owner of the longest prefix that holds `address` (4 or 16 bytes); None when there is none."""
        if address == self._latest:
            return self._latest_owner
        if type(address) is not bytes:
            address = bytes(address)
        family, value = self._families[len(address)], _from_bytes(address, "big")
        tables = family.tables
        for host_bits in family.plans[family.plan_of[value >> family.block_bits & _PLACE]]:
            owner = tables[host_bits].get(value >> host_bits)
            if owner is not None:
                self._latest, self._latest_owner = address, owner
                return owner
        return None

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
        self._latest, self._latest_owner = b"", None
        size, host_bits, prefix = place
        del self._families[size].tables[host_bits][prefix]


@lru_cache(maxsize=1024)
def _with(lengths: tuple[int, ...], another: int) -> tuple[int, ...]:
    """Cached, so that blocks with the same lengths, of which there are many, share one object."""
    return tuple(sorted({*lengths, another}))


def _place(network: Network) -> tuple[int, int, int]:
    """Where a network is kept: its addresses' size in bytes, its host bits, and its network bits as a number."""
    bits = network.max_prefixlen
    host_bits = bits - network.prefixlen
    return bits // 8, host_bits, int(network.network_address) >> host_bits
