"""Attempts that handlers count, which run in several threads."""

from __future__ import annotations

from threading import Lock

from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.throttle import BY_ACCOUNT, BY_ADDRESS, SIZE, Limit, Throttle


class Attempts(Throttle):
    """A throttle that is used from threads: requests at the same time do not all find the same attempt left."""

    def __init__(self, by_account: Limit = BY_ACCOUNT, by_address: Limit = BY_ADDRESS, size: int = SIZE) -> None:
        super().__init__(by_account, by_address, size)
        self._lock = Lock()

    def attempt(self, account: str | None, address: Address | None, now: float) -> float:
        with self._lock:
            return super().attempt(account, address, now)

    def succeeded(self, account: str | None, address: Address | None, now: float, *, wholly: bool = True) -> None:
        with self._lock:
            super().succeeded(account, address, now, wholly=wholly)
