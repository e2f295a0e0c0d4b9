"""TUNs without a kernel: what they have in common, and one that is two queues of packets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from wgpy.burst import Burst
from wgpy.constants import DEFAULT_MTU
from wgpy.errors import TunError


class LoopTun:
    """A TUN in this process: it asks the loop for a turn while it has packets to read.

    It belongs to one thread, the event loop's.
    """

    name: str
    """The interface's name, for logs."""
    mtu: int
    """The largest packet in bytes."""
    bursts_at_once: int
    """How many bursts of a socket are written before the other side and the timers have a turn."""
    is_dry: bool
    """Whether nothing waits behind what was read last; False also where only a read tells."""

    def __init__(self, name: str, mtu: int) -> None:
        self.name = name
        self.mtu = mtu
        self.bursts_at_once = 1
        self.is_dry = False
        self._reader: tuple[asyncio.AbstractEventLoop, Callable[[], None]] | None = None
        self._wakeup: asyncio.Handle | None = None
        self._closed = False

    @property
    def is_in_other_namespace(self) -> bool:
        """False: it is in no network namespace."""
        return False

    def link(self) -> tuple[bool, int] | None:
        """Whether it is up, which it is until it is closed; and its MTU in bytes."""
        return not self._closed, self.mtu

    def start_reading(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        """Have the loop call `callback` as long as there are packets to read."""
        self._reader = loop, callback
        self.schedule()

    def stop_reading(self) -> None:
        """Call `callback` no more."""
        self._reader = None
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None

    def close(self) -> None:
        """Stop reading, and refuse packets from now on."""
        self.stop_reading()
        self._closed = True

    def schedule(self) -> None:
        """Ask for a turn of the loop if there is something to read."""
        if self._reader is not None and self._wakeup is None and self._has_packets():
            self._wakeup = self._reader[0].call_soon(self._readable)

    def _has_packets(self) -> bool:
        raise NotImplementedError

    def _readable(self) -> None:
        self._wakeup = None
        if self._reader is not None:
            self._reader[1]()
            self.schedule()

    def flush(self) -> None:
        """All that came together was written."""

    def _check_open(self) -> None:
        if self._closed:
            raise TunError(f"{self.name} is closed")


class MemoryTun(LoopTun):
    """A TUN for `Tunnel` that needs no kernel: applications use `inject` and `take`.

    It belongs to one thread, the event loop's.
    """

    on_arrival: Callable[[], None] | None
    """If set, called after packets have arrived for `take`."""

    def __init__(self, name: str = "memory", mtu: int = DEFAULT_MTU) -> None:
        super().__init__(name, mtu)
        self.on_arrival = None
        self._outbound: deque[bytes] = deque()
        self._inbound: deque[bytes] = deque()

    def inject(self, packet: bytes) -> None:
        """Send an IP packet into the tunnel, as an application would. Raises TunError after `close`."""
        self._check_open()
        self._outbound.append(bytes(packet))
        self.schedule()

    def take(self) -> bytes | None:
        """The oldest packet that came out of the tunnel and has not been taken; None if there is none."""
        return self._inbound.popleft() if self._inbound else None

    def read(self) -> Burst | None:
        """The oldest injected packet, in a buffer of its own; None if there is none. Raises TunError after `close`."""
        self._check_open()
        return Burst.of(self._outbound.popleft(), self.mtu) if self._outbound else None

    def write(self, burst: Burst) -> None:
        """Hand the burst's packets to `take`. Raises TunError after `close`."""
        self._check_open()
        self._inbound.extend(bytes(packet) for packet in burst.packets())
        if self.on_arrival is not None:
            self.on_arrival()

    def _has_packets(self) -> bool:
        return bool(self._outbound)
