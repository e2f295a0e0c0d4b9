"""How often somebody may try to sign in: by account, and by the address from which the attempt comes.

An attempt is counted before the password is looked at, so that attempts at the same time count, too, and is given back
if it succeeds. Whether the account exists makes no difference.

Somebody who guesses Alice's password from many addresses uses up the attempts at her account. Alice herself is not kept
out by that: at an address from which she has signed in before, her attempts are counted apart (OWASP calls this a
device cookie).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from wgpy.gateway.policy.destinations import Address, Network

SIZE: Final = 65_536  # entries of a table, some 10 MB; the one not used for longest is forgotten
_SITE: Final = {4: 32, 6: 64}  # bits: who has one address of an IPv6 /64 has them all


@dataclass(frozen=True, slots=True)
class Limit:
    """So many attempts at once, and another one after so many seconds."""

    burst: int
    every: float  # seconds


BY_ACCOUNT: Final = Limit(10, 180.0)
BY_ADDRESS: Final = Limit(30, 30.0)


class Throttle:
    """Counts attempts to sign in. `now` is in seconds of any clock that never goes back."""

    def __init__(self, by_account: Limit = BY_ACCOUNT, by_address: Limit = BY_ADDRESS, size: int = SIZE) -> None:
        self._accounts, self._addresses = _Buckets(by_account, size), _Buckets(by_address, size)
        self._known: OrderedDict[tuple[str, Network], None] = OrderedDict()
        self._size = size

    def attempt(self, account: str | None, address: Address | None, now: float) -> float:
        """Count an attempt. Returns 0.0 if it may go on, and otherwise the seconds after which another one may.

        There is no address for a client of a local socket, and no account for what cannot be guessed, as a signature.
        """
        site = _site(address)
        wait = self._addresses.take(site, now) if site else 0.0
        return wait if wait or account is None else self._accounts.take(self._key(account, site), now)

    def succeeded(self, account: str | None, address: Address | None, now: float, *, wholly: bool = True) -> None:
        """Give an attempt back that succeeded; `wholly` if the person is signed in now and nothing is left to prove."""
        site = _site(address)
        if account is not None:
            self._accounts.give(self._key(account, site), now)
        if site:
            self._addresses.give(site, now)
        if site and account is not None and wholly:
            self._known[account, site] = None
            self._known.move_to_end((account, site))
            if len(self._known) > self._size:
                self._known.popitem(last=False)

    def __len__(self) -> int:
        """The number of entries in all tables."""
        return len(self._accounts) + len(self._addresses) + len(self._known)

    def _key(self, account: str, site: Network | None) -> Hashable:
        return (account, site) if site and (account, site) in self._known else account


class _Buckets:
    """The generic cell rate algorithm (ITU-T I.371): for each key the time at which its bucket is full again."""

    def __init__(self, limit: Limit, size: int) -> None:
        self._limit, self._size = limit, size
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def take(self, key: Hashable, now: float) -> float:
        """Take one attempt. Returns 0.0, or the seconds until there is one to take."""
        full_at = max(self._full_at.get(key, now), now) + self._limit.every
        if (wait := full_at - now - self._limit.burst * self._limit.every) > 0:
            return wait
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._size:
            self._full_at.popitem(last=False)
        return 0.0

    def give(self, key: Hashable, now: float) -> None:
        """Put one attempt back."""
        if (full_at := self._full_at.get(key, now) - self._limit.every) > now:
            self._full_at[key] = full_at
        else:
            self._full_at.pop(key, None)

    def __len__(self) -> int:
        return len(self._full_at)


def _site(address: Address | None) -> Network | None:
    if address is None:
        return None
    mapped = getattr(address, "ipv4_mapped", None) or address
    return ip_network((mapped, _SITE[mapped.version]), strict=False)
