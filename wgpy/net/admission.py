"""Who may hold the process's descriptors: every listener's connections and flows are counted against one capacity.

When it is full, a newcomer still gets in. The client that holds most (of several, the one silent for longest) gives up
one of its connections: first one that has never passed anything on, else the one that has been silent for longest. So
neither idle connections nor one busy client keep others out, and the process never runs out of descriptors; an event
loop that has none left can accept nothing, and spins.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_network
from typing import Final

log: Final = logging.getLogger("wgpy")

BACKLOG: Final = 64  # connections a listener's queue holds; the loop may accept that many before it looks at any
_RESERVE: Final = 64  # descriptors of everything else: sockets of the tunnel, the loop, files, libraries
_MOST: Final = 1 << 13  # descriptors, however high the limit is: each connection may come to buffer a megabyte or two
_FEWEST: Final = 16
ULIMIT: Final = "as many connections and flows as the limit of files (ulimit -n) allows"
_SILENCE: Final = 60.0  # seconds between two lines of log that say it is full


def descriptors() -> int:
    """How many descriptors connections may use: the soft limit of files (`ulimit -n`), less what the rest needs."""
    try:
        import resource
    except ImportError:  # Windows, whose sockets are no files
        return _MOST - _RESERVE
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = _MOST if soft == resource.RLIM_INFINITY else min(_MOST, soft)
    return max(_FEWEST, most - _RESERVE)


def client_of(address: object) -> str:
    """What counts as one client, of a socket's address: the host; of IPv6 its /64, for one host has all of that."""
    host = str(address[0]).partition("%")[0] if isinstance(address, tuple) else ""
    if ":" not in host:
        return host
    if mapped := IPv6Address(host).ipv4_mapped:
        return str(mapped)
    return str(ip_network((host, 64), strict=False))


class Admission:
    """A capacity in descriptors, and those admitted to it. `full` is what the log says when nothing is left of it."""

    def __init__(self, capacity: int, full: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity: int = capacity
        self._least = capacity // 2
        self.used: int = 0
        self._full = full
        self._clock = clock
        self._logged = float("-inf")
        self._holdings: dict[str, _Holdings] = {}
        self._by_size: dict[int, OrderedDict[str, None]] = {}  # who holds so many descriptors, silent for longest first
        self._most = 0  # the largest of those sizes

    def reserve(self, count: int) -> None:
        """Take descriptors out of the capacity for good, as for a listener and what waits in its queue.

        Half of it always remains: the queues of many listeners are hardly full together, and a loop that runs out of
        descriptors then has some again as soon as it looks at what it accepted.
        """
        self.capacity = max(self._least, self.capacity - count)

    def admit(self, client: str, cost: int, close: Callable[[], None]) -> Admitted:
        """Count `cost` descriptors of a client. `close`, which must not raise, is called if it has to make room."""
        while self.used and self.used + cost > self.capacity:
            self._evict()
        admitted = Admitted(self, client, cost, close)
        self._holdings.setdefault(client, _Holdings()).fresh[admitted] = None
        self._resize(client, cost)
        return admitted

    def _evict(self) -> None:
        if self._clock() >= self._logged + _SILENCE:
            self._logged = self._clock()
            log.warning("%s; those silent for longest make room for new ones", self._full)
        client = next(iter(self._by_size[self._most]))
        holdings = self._holdings[client]
        victim = next(iter(holdings.fresh or holdings.used))
        victim.release()
        victim.close()

    def _resize(self, client: str, change: int) -> None:
        """Note that a client has so many descriptors more: in a few steps, however many clients there are."""
        holdings = self._holdings[client]
        self.used += change
        if holdings.size:
            del self._by_size[holdings.size][client]
            if not self._by_size[holdings.size]:
                del self._by_size[holdings.size]
        holdings.size += change
        if holdings.size:
            self._by_size.setdefault(holdings.size, OrderedDict())[client] = None
        else:
            del self._holdings[client]
        self._most = max(self._most, holdings.size)
        while self._most and self._most not in self._by_size:  # at most as many steps as `change`
            self._most -= 1


class _Holdings:
    """What one client holds, in the order in which it is given up."""

    def __init__(self) -> None:
        self.size = 0  # descriptors
        self.fresh: OrderedDict[Admitted, None] = OrderedDict()  # nothing has passed yet
        self.used: OrderedDict[Admitted, None] = OrderedDict()  # silent for longest first


class Admitted:
    """A connection or flow that counts until it is released."""

    def __init__(self, admission: Admission, client: str, cost: int, close: Callable[[], None]) -> None:
        self._admission = admission
        self._client = client
        self._cost = cost
        self.close = close
        self._is_released = False

    def touch(self) -> None:
        """Something was passed on."""
        if self._is_released:
            return
        holdings = self._admission._holdings[self._client]
        if self in holdings.fresh:
            del holdings.fresh[self]
            holdings.used[self] = None
        else:
            holdings.used.move_to_end(self)
        self._admission._by_size[holdings.size].move_to_end(self._client)

    def release(self) -> None:
        """It is closed. Releasing twice is harmless."""
        if self._is_released:
            return
        self._is_released = True
        holdings = self._admission._holdings[self._client]
        holdings.fresh.pop(self, None)
        holdings.used.pop(self, None)
        self._admission._resize(self._client, -self._cost)
