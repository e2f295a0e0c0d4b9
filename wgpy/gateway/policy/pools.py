"""Pools of clients' addresses: which address a device gets, and what a pool must not overlap.

Leases are sticky: a key that had an address gets the same one again for as long as there are others to give away. Pools
grow when one is added or replaced by a network around it; no device's address changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from wgpy.errors import ConfigError
from wgpy.gateway.policy.destinations import Address, Network
from wgpy.keys import PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """An address that a key had until `at`, in seconds since 1970."""

    address: Address
    public_key: PublicKey
    at: float


def own_address(pool: Network) -> Address:
    """The gateway's address in a pool: the first one after the network's."""
    return pool.network_address + 1


def assign(
    pools: Sequence[Network],
    held: Collection[Address],
    released: Iterable[Released],
    public_key: PublicKey,
    wanted: Address | None = None,
) -> Address:
    """Choose a key's address from pools of one IP version: `wanted`, its former one, a new one, or the longest unused.

    Raises ConfigError if every address is taken, or if `wanted` cannot be had.
    """
    if wanted is not None:
        _check_wanted(pools, held, wanted)
        return wanted
    usable = [each for each in released if _is_usable(pools, each.address) and each.address not in held]
    if former := max((each for each in usable if each.public_key == public_key), key=_age, default=None):
        return former.address
    taken = {*map(int, held), *(int(each.address) for each in usable)}
    for pool in pools:
        first, last = _span(pool)
        free = next((number for number in range(first, last + 1) if number not in taken), None)
        if free is not None:
            return pool.network_address + (free - int(pool.network_address))
    if oldest := min(usable, key=_age, default=None):
        return oldest.address
    listed = ", ".join(map(str, pools))
    raise ConfigError(f"pool {listed}: every address is taken; add a pool, or replace it by a network around it")


def check(pools: Sequence[Network], others: Mapping[str, Iterable[Network]]) -> None:
    """Check pools against one another and against `others`, whose keys are what those are, for the message.

    Default routes are no obstacle. Raises ConfigError.
    """
    for pool in pools:
        if pool.num_addresses < 4:
            raise ConfigError(f"pool {pool}: too small for a gateway and a client; a /30 or /126 is the smallest")
    for one, other in combinations(pools, 2):
        if overlap(one, other):
            raise ConfigError(f"pool {one}: overlaps pool {other}; choose another network")
    for what, networks in others.items():
        for network in networks:
            for pool in pools:
                if network.prefixlen and overlap(pool, network):
                    raise ConfigError(f"pool {pool}: overlaps {what} {network}; choose a network that nobody here uses")


def overlap(one: Network, other: Network) -> bool:
    """Whether two networks have an address in common."""
    return one.version == other.version and (one.network_address in other or other.network_address in one)


def _check_wanted(pools: Sequence[Network], held: Collection[Address], wanted: Address) -> None:
    if not any(wanted in pool for pool in pools):
        listed = ", ".join(map(str, pools)) or f"there is none for IPv{wanted.version}"
        raise ConfigError(f"address {wanted}: not in a pool ({listed}); choose one that is, or add a pool")
    if not _is_usable(pools, wanted):
        raise ConfigError(f"address {wanted}: it is the network's or the gateway's own; choose another")
    if wanted in held:
        raise ConfigError(f"address {wanted}: another device has it; choose another, or remove that device")


def _age(released: Released) -> float:
    return released.at


def _is_usable(pools: Iterable[Network], address: Address) -> bool:
    return any(first <= int(address) <= last for pool in pools if pool.version == address.version
               for first, last in [_span(pool)])  # fmt: skip


def _span(pool: Network) -> tuple[int, int]:
    """The first and last address for clients: not the network's, the gateway's or, in IPv4, the broadcast address."""
    return int(own_address(pool)) + 1, int(pool.broadcast_address) - (pool.version == 4)
