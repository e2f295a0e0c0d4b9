"""What a tunnel needs from outside: a TUN, a host on which to open a UDP port, and a clock."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from wgpy.burst import Burst, Datagrams
from wgpy.config.values import ALL_OFFLOADS, Offloads
from wgpy.endpoint import Endpoint
from wgpy.net.receiving import Received
from wgpy.net.sending import SendResult

# Bursts taken from one side before the other side and the timers get their turn: some 0.3 ms each. With 8, a ping under
# load took half as long again, and no more went through.
READS_PER_WAKEUP: Final = 2
# Datagrams of other senders (handshakes, keepalives) that may wait while a socket is full.
MAX_WAITING: Final = 256

# Seconds by which the machine must have slept for the sessions to be forgotten, as the kernel forgets them.
SUSPENDED_FROM: Final = 1.0


class Tun(Protocol):
    """What a tunnel needs of a TUN: `LinuxTun` and `MemoryTun` are two."""

    name: str
    mtu: int

    def read(self) -> Burst | None: ...
    def write(self, burst: Burst) -> None: ...
    @property
    def is_in_other_namespace(self) -> bool: ...
    def link(self) -> tuple[bool, int] | None: ...
    def start_reading(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None: ...
    def stop_reading(self) -> None: ...
    def close(self) -> None: ...


class Udp(Protocol):
    """What a tunnel needs of an open UDP port: `UdpSockets` and `MemoryUdp` are two."""

    port: int

    @property
    def sockets(self) -> Sequence[socket.socket]: ...
    def start_reading(self, loop: asyncio.AbstractEventLoop, readable: Callable[[Any], bool]) -> None: ...
    def stop_reading(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def receive(self, sock: Any) -> Received | None: ...
    def send(self, datagrams: Datagrams, endpoint: Endpoint, traffic_class: int) -> SendResult: ...
    def socket_for(self, endpoint: Endpoint) -> socket.socket | None: ...
    def set_fwmark(self, mark: int) -> None: ...
    def forget_refusals(self) -> None: ...
    def close(self) -> None: ...


class UdpHost(Protocol):
    """Where a tunnel opens its UDP port: the machine, which is `UdpSockets` itself, or a `MemoryHost`."""

    def open(self, port: int = 0, *, fwmark: int = 0, offloads: Offloads = ALL_OFFLOADS) -> Udp: ...


def machine_clock() -> float:
    """Seconds of CLOCK_BOOTTIME, which counts time spent suspended: the device's `now`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
