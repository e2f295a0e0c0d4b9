"""Which clients may hold file descriptors: the connections and flows of all listeners share one capacity.

When it is used up, a new connection is still accepted, and another one is closed for it. The client that holds the most
descriptors gives one up; if there are several, the one that has been idle for longest. It loses a connection that has
never carried data, or else the one that has been idle for longest. So neither idle connections nor one busy client lock
others out, and the process never runs out of descriptors: an event loop without any can accept nothing, and spins.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_network
from typing import Final

log: Final = logging.getLogger("wgpy")

BACKLOG: Final = 64  # connections in a listener's queue; the loop may accept that many before it handles the first
_RESERVE: Final = 64  # descriptors for everything else: the tunnel's sockets, the loop, files, libraries
_MOST: Final = 1 << 13  # descriptors, however high the limit: each connection may buffer a megabyte or two
_FEWEST: Final = 16
ULIMIT: Final = "as many connections and flows as the limit of files (ulimit -n) allows"
_LOG_EVERY: Final = 60.0  # seconds between two log lines that say that the capacity is used up


def descriptors() -> int:
    """How many descriptors connections may use: the soft limit (`ulimit -n`) less what everything else needs."""
    try:
        import resource
    except ImportError:  # Windows, where sockets are not files
        return _MOST - _RESERVE
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = _MOST if soft == resource.RLIM_INFINITY else min(_MOST, soft)
    return max(_FEWEST, most - _RESERVE)


def client_of(address: object) -> str:
    """The client that a socket's address belongs to: its host, or the /64 of an IPv6 host, which may use all of it."""
    host = str(address[0]).partition("%")[0] if isinstance(address, tuple) else ""
    if ":" not in host:
        return host
    if mapped := IPv6Address(host).ipv4_mapped:
        return str(mapped)
    return str(ip_network((host, 64), strict=False))


class Admission:
    """A capacity in descriptors, and who uses it. `full` is what the log says when it is used up."""

    def __init__(self, capacity: int, full: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity: int = capacity
        self._least = capacity // 2
        self.used: int = 0
        self._full = full
        self._clock = clock
        self._logged = float("-inf")
        self._holdings: dict[str, _Holdings] = {}
        self._by_size: dict[int, OrderedDict[str, None]] = {}  # size -> clients of that size, longest idle first
        self._most = 0  # the largest of those sizes

    def reserve(self, count: int) -> None:
        """Take descriptors out of the capacity for good, as for a listener and the connections in its queue.

        Half of the capacity always remains. The queues of many listeners are hardly ever full at once; if they are, the
        loop has descriptors again as soon as it handles what it accepted.
        """
        self.capacity = max(self._least, self.capacity - count)

    def admit(self, client: str, cost: int, close: Callable[[], None]) -> Admitted:
        """Count `cost` descriptors for a client. `close`, which must not raise, is called if others need them."""
        while self.used and self.used + cost > self.capacity:
            self._evict()
        admitted = Admitted(self, client, cost, close)
        self._holdings.setdefault(client, _Holdings()).fresh[admitted] = None
        self._resize(client, cost)
        return admitted

    def _evict(self) -> None:
        if self._clock() >= self._logged + _LOG_EVERY:
            self._logged = self._clock()
            log.warning("%s; those idle for longest are closed for new ones", self._full)
        client = next(iter(self._by_size[self._most]))
        holdings = self._holdings[client]
        victim = next(iter(holdings.fresh or holdings.used))
        victim.release()
        victim.close()

    def _resize(self, client: str, change: int) -> None:
        """Note that a client has `change` descriptors more; takes a few steps, however many clients there are."""
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
    """The connections and flows of one client, in the order in which they are given up."""

    def __init__(self) -> None:
        self.size = 0  # descriptors
        self.fresh: OrderedDict[Admitted, None] = OrderedDict()  # have carried no data yet
        self.used: OrderedDict[Admitted, None] = OrderedDict()  # longest idle first


class Admitted:
    """A connection or flow that counts until it is released."""

    def __init__(self, admission: Admission, client: str, cost: int, close: Callable[[], None]) -> None:
        self._admission = admission
        self._client = client
        self._cost = cost
        self.close = close
        self._is_released = False

    def touch(self) -> None:
        """Note that it has carried data."""
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
        """Stop counting it, because it is closed. Releasing it twice is harmless."""
        if self._is_released:
            return
        self._is_released = True
        holdings = self._admission._holdings[self._client]
        holdings.fresh.pop(self, None)
        holdings.used.pop(self, None)
        self._admission._resize(self._client, -self._cost)
