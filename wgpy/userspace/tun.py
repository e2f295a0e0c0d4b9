"""The stack as a tunnel's TUN: what peers sent goes into the host as it came, and its bursts leave as it makes them.

Nothing runs while nothing is to be done: the loop is asked for a turn when there is something to send, and for one
timer, the host's next.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from errno import ENETUNREACH
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from math import inf
from typing import Final

from wgpy.burst import Burst
from wgpy.constants import DEFAULT_MTU, TRANSPORT_HEADER_SIZE
from wgpy.errors import TunnelClosedError
from wgpy.stack.failures import failure
from wgpy.stack.host import Host
from wgpy.stack.news import News
from wgpy.stack.tcp.connection import Connection
from wgpy.tun.memory import LoopTun

_V4 = slice(TRANSPORT_HEADER_SIZE + 16, TRANSPORT_HEADER_SIZE + 20)  # the destination of a burst's first packet
_V6 = slice(TRANSPORT_HEADER_SIZE + 24, TRANSPORT_HEADER_SIZE + 40)
# Of up to 190 kB, as readers gather them: what comes within them is handled together, connection by connection. With
# fifty connections, whose packets come mixed, eight of up to 128 kB took a third less time than two.
_BURSTS_AT_ONCE: Final = 8


class StackTun(LoopTun):
    """A TUN with a `Host` behind it. `handlers` are what to call when the host has news of a connection, and so on.

    `clock` tells seconds, as the tunnel's. Belongs to one thread, the event loop's.
    """

    def __init__(self, clock: Callable[[], float], name: str = "stack", mtu: int = DEFAULT_MTU) -> None:
        self._host: Host | None = None
        super().__init__(name, mtu)
        self.bursts_at_once = _BURSTS_AT_ONCE
        self.clock = clock
        self.handlers: dict[object, Callable[[], None]] = {}
        self.on_room: dict[Callable[[], None], None] = {}  # called once, when packets have left
        self.on_echo: Callable[[News], None] | None = None
        self._collected = 0  # bursts
        self._came_at = 0.0  # the last of them
        self._answers_alone = False  # the last arrivals were of one connection
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    @property
    def mtu(self) -> int:
        """The longest packet in bytes. Connections that are open follow a change."""
        return self._mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        self._mtu = mtu
        if self._host is not None and not self._closed:
            self._host.resize(mtu, self.clock())
            self.schedule()

    @property
    def host(self) -> Host:
        """Raises TunnelClosedError before `begin` and after `close`."""
        if self._host is None or self._closed:
            raise TunnelClosedError("the tunnel is not open")
        return self._host

    def begin(self, addresses: Collection[bytes]) -> None:
        """Be a host with these addresses, of 4 or 16 bytes each, from now on."""
        self._host = Host(addresses, mtu=self.mtu, random=os.urandom)

    def packed(self, address: str) -> bytes:
        """The 4 or 16 bytes of the address to send to: a loopback address, or none, means the tunnel's own.

        Raises OSError, ENETUNREACH: the tunnel has no address of that family. ValueError: it is a name.
        """
        packed, is_own = _parsed(address)
        if not is_own:
            return packed
        own = [known for known in self.host.addresses if len(known) == len(packed)]
        if not own:
            raise failure(ENETUNREACH)
        return own[0]

    def wake(self, connection: Connection) -> None:
        """An application did something with a connection."""
        if self._host is not None and not self._closed:
            self._host.wake(connection)
            self.schedule()

    def send(self, connection: Connection) -> None:
        """An application has written to a connection.

        An answer to what came alone leaves at once; else what is written in this turn of the loop leaves together.
        """
        if not self._answers_alone or self._host is None or self._closed:
            self.wake(connection)
            return
        self._host.wake(connection)
        if self._wakeup is not None:
            self._wakeup.cancel()
        self._readable()

    # What a tunnel asks of a TUN.

    def read(self) -> Burst | None:
        """The next burst; what goes to an address of our own is taken in again. Raises TunError after `close`."""
        self._check_open()
        self._answers_alone = False
        if self._host is None or not self._host.has_more:
            return None
        burst = self._host.transmit(self.clock())
        if self.on_room:
            waiting, self.on_room = self.on_room, {}
            for call in waiting:
                call()
        self.is_dry = not self._host.has_more
        if burst is None:
            return None
        destination = burst.view[_V4] if burst.view[TRANSPORT_HEADER_SIZE] >> 4 == 4 else burst.view[_V6]
        if destination in self._host.addresses:
            self.write(burst.copy())
            return None
        return burst

    def write(self, burst: Burst) -> None:
        """Packets from a peer: the host handles them with `flush`, or earlier. Raises TunError after `close`."""
        self._check_open()
        if self._host is None:
            return
        self._collected += 1
        self._came_at = self.clock()
        if self._host.collect(burst, self._came_at) or self._collected >= self.bursts_at_once:
            self.flush()

    def flush(self) -> None:
        """Let the host handle what was written, each connection all that came for it in one piece."""
        if not self._collected or self._host is None or self._closed:
            return
        self._collected = 0
        news = self._host.handle(self._came_at)
        self._tell(news)
        self.schedule()
        self._answers_alone = len(news.connections) == 1

    def close(self) -> None:
        super().close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.handlers.clear()
        self.on_room.clear()

    # Turns of the loop.

    def schedule(self) -> None:
        """Ask for a turn of the loop if something may be to leave; else for one when the host wants to be called."""
        if self._host is None or self._closed:
            return
        if not self._host.has_more:
            self._set_timer()
        elif self._wakeup is None:
            super().schedule()

    def _has_packets(self) -> bool:
        return self._host is not None and self._host.has_more

    def _set_timer(self) -> None:
        """Wake for the next deadline; that one has moved later, as most do, is found out when its old time comes."""
        assert self._host is not None
        at = self._host.next_timeout()
        if at >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - self.clock()), self._deadline_came)

    def _deadline_came(self) -> None:
        self._timer, self._timer_at = None, inf
        if self._host is not None and not self._closed:
            self._tell(self._host.handle_timeout(self.clock()))
            self.schedule()

    def _tell(self, news: News) -> None:
        for thing in (*news.connections, *news.listeners, *news.sockets):
            if (handler := self.handlers.get(thing)) is not None:
                handler()
        if (news.echoes or news.unanswered) and self.on_echo is not None:
            self.on_echo(news)


@lru_cache(maxsize=256)
def _parsed(address: str) -> tuple[bytes, bool]:
    """The 4 or 16 bytes of an address, and whether it means the tunnel itself. Raises ValueError: it is a name."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return found.packed, found.is_loopback or found.is_unspecified
