"""TCP over a line that loses packets or delivers some late: wgpy's own beside the kernel's, in real time.

The line is this process, between two TUNs in network namespaces, or between one and a `Host` of wgpy's stack. It
carries so few packets a second that the processor does not limit it.
`python -m benchmarks.lines send|receive ADDRESS BYTES CONGESTION_CONTROL` is the kernel's end; `receive` prints bytes a
second.
"""

from __future__ import annotations

import os
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from heapq import heappop, heappush
from ipaddress import ip_address
from itertools import count
from math import inf
from typing import Final, NamedTuple, Protocol

from benchmarks.goals import BBR, CUBIC, WGPY
from benchmarks.plan import Plan
from tests.stack.line import Application
from tests.support.netns import Namespace
from wgpy.burst import Burst
from wgpy.stack.host import Host
from wgpy.tun.linux import LinuxTun

PORT: Final = 7000
MTU: Final = 1420
ADDRESSES: Final = ("10.9.0.1", "10.9.0.2")
PATIENCE: Final = 120.0  # seconds for one transfer
CHUNK: Final = 1 << 16
CONGESTION: Final = {CUBIC: "cubic", BBR: "bbr"}


class Quality(NamedTuple):
    """Of each direction alike: seconds, bits a second, and the probability that a packet is lost, or late."""

    delay: float
    rate: float = 50e6
    queue: float = 0.05  # seconds of packets that may wait; what comes then is lost
    loss: float = 0.0
    late: float = 0.0
    late_by: float = 0.0


class Transfer(NamedTuple):
    quality: Quality
    size: int  # bytes
    what: str  # as the results describe it


LOSSY: Final = Transfer(Quality(0.010, loss=0.01), 4_000_000, "1 % lost, round trip 20 ms")
LATE: Final = Transfer(Quality(0.002, late=0.01, late_by=0.003), 15_000_000, "1 % late by 3 ms, round trip 4 ms")
# By measure: the line, and whether wgpy sends (else it receives).
PARTS: Final = {
    "line_loss_up": (LOSSY, True),
    "line_loss_down": (LOSSY, False),
    "line_late_up": (LATE, True),
    "line_late_down": (LATE, False),
}


def measure(plan: Plan) -> None:
    """wgpy's own TCP beside the kernel's over bad lines."""
    with open("/proc/sys/net/ipv4/tcp_available_congestion_control") as file:
        available = file.read().split()
    for name, congestion in CONGESTION.items():
        if congestion not in available:
            plan.leave_out(name, f"this kernel has no {congestion}")
    senders = [name for name, congestion in CONGESTION.items() if congestion in available]
    for number in range(plan.rounds):
        for key in PARTS:
            for name in (WGPY, *senders)[:: -1 if number % 2 else 1]:
                plan.attempt("lines", partial(_round, plan, number, key, name))


def _round(plan: Plan, number: int, key: str, name: str) -> None:
    transfer, sends = PARTS[key]
    if name == BBR and not sends:
        return  # it is measured as a sender
    with ExitStack() as cleanup:
        ours = OurEnd(transfer.size, sends=sends) if name == WGPY else None
        congestion = CONGESTION.get(name, CONGESTION[CUBIC])
        ends = (
            ours if ours and sends else KernelEnd(cleanup, 0, ("send", ADDRESSES[1], str(transfer.size), congestion)),
            ours if ours and not sends else KernelEnd(cleanup, 1, ("receive", ADDRESSES[1], str(transfer.size), "")),
        )
        cleanup.enter_context(undisturbed())
        rate = Line(ends, transfer.quality, number).carry() * 8e-6
    plan.add(
        key, name, number, rate, f"{transfer.size / 1e6:g} MB: {transfer.what}, {transfer.quality.rate / 1e6:g} Mbit/s"
    )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Before every other process, so that their work does not become part of the line."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


class End(Protocol):
    """What a line joins. The second of its ends receives, and is begun first."""

    def begin(self) -> None: ...
    def fileno(self) -> int: ...
    def take(self, now: float) -> Iterable[bytes]: ...
    def give(self, packet: bytes, now: float) -> None: ...
    def wakes_at(self) -> float: ...
    def rate(self) -> float | None: ...


class KernelEnd:
    """The kernel's TCP, behind a TUN in a namespace of its own, and a program that uses it."""

    def __init__(self, cleanup: ExitStack, number: int, command: tuple[str, ...]) -> None:
        self._command = command
        self._cleanup = cleanup
        self._namespace = cleanup.enter_context(Namespace())
        self._tun = self._namespace.make(lambda: LinuxTun.open("line"))
        cleanup.callback(self._tun.close)
        self._tun.mtu = MTU
        self._namespace.run("ip", "address", "add", f"{ADDRESSES[number]}/24", "dev", "line")
        self._namespace.run("ip", "link", "set", "line", "mtu", str(MTU), "up")

    def begin(self) -> None:
        command = (sys.executable, "-m", "benchmarks.lines", *self._command)
        self._program = self._namespace.popen(*command, stdout=subprocess.PIPE)
        assert self._program.stdout is not None
        assert self._program.stdout.readline() == "ready\n"

    def fileno(self) -> int:
        return self._tun.fileno()

    def take(self, now: float) -> Iterable[bytes]:
        while (burst := self._tun.read()) is not None:
            yield from map(bytes, burst.packets())

    def give(self, packet: bytes, now: float) -> None:
        self._tun.write(Burst.of(packet))

    def wakes_at(self) -> float:
        return inf

    def rate(self) -> float | None:
        if self._program.poll() is None:
            return None
        assert self._program.stdout is not None
        return float(self._program.stdout.read() or 0)


class OurEnd:
    """wgpy's TCP, and an application that sends or receives."""

    def __init__(self, size: int, *, sends: bool) -> None:
        self._size, self._sends = size, sends
        self._host = Host([ip_address(ADDRESSES[not sends]).packed], mtu=MTU, random=os.urandom)
        self._application = Application(data=bytes(size) if sends else b"")
        self._began = self._ended = 0.0

    def begin(self) -> None:
        if self._sends:
            self._application.connection = self._host.connect(ip_address(ADDRESSES[1]).packed, PORT, time.monotonic())
        else:
            self._listener = self._host.listen(None, PORT)

    def fileno(self) -> int:
        return -1

    def take(self, now: float) -> Iterable[bytes]:
        if self._host.next_timeout() <= now:
            self._host.handle_timeout(now)
        if self._application.connection is None:
            self._application.connection = self._host.accept(self._listener)
        self._application.run(self._host)
        while (burst := self._host.transmit(now)) is not None:
            yield from map(bytes, burst.packets())
        if self._application.received and not self._began:
            self._began = now
        if len(self._application.received) == self._size and not self._ended:
            self._ended = now

    def give(self, packet: bytes, now: float) -> None:
        self._host.receive(Burst.of(packet), now)

    def wakes_at(self) -> float:
        return self._host.next_timeout()

    def rate(self) -> float | None:
        return self._size / (self._ended - self._began) if self._ended else None


class Line:
    """Two directions of one quality, of which the seed decides what happens to the n-th packet."""

    def __init__(self, ends: tuple[End, End], quality: Quality, seed: int) -> None:
        self._ends = ends
        self._quality = quality
        self._chances = [random.Random(2 * seed + way) for way in (0, 1)]
        self._free_at = [0.0, 0.0]
        self._flying: list[tuple[float, int, int, bytes]] = []
        self._order = count()

    def carry(self) -> float:
        """Until the receiver has all; returns bytes a second."""
        for end in reversed(self._ends):
            end.begin()
        patience = time.monotonic() + PATIENCE
        while (rate := self._ends[1].rate()) is None:
            now = time.monotonic()
            assert now < patience, f"not received within {PATIENCE:g} s"
            for way, end in enumerate(self._ends):
                for packet in end.take(now):
                    self._enter(way, packet, now)
            while self._flying and self._flying[0][0] <= now:
                _, _, way, packet = heappop(self._flying)
                self._ends[1 - way].give(packet, now)
            for way, end in enumerate(self._ends):
                for packet in end.take(now):
                    self._enter(way, packet, now)
            wakes = min(self._flying[0][0] if self._flying else inf, *(end.wakes_at() for end in self._ends))
            files = [end.fileno() for end in self._ends if end.fileno() >= 0]
            select.select(files, [], [], max(0.0, min(wakes - time.monotonic(), 0.05)))
        return rate

    def _enter(self, way: int, packet: bytes, now: float) -> None:
        quality, chance = self._quality, self._chances[way]
        is_lost, is_late = chance.random() < quality.loss, chance.random() < quality.late
        free_at = max(self._free_at[way], now)
        if is_lost or free_at - now > quality.queue:
            return
        self._free_at[way] = free_at + 8 * len(packet) / quality.rate
        at = self._free_at[way] + quality.delay + quality.late_by * is_late
        heappush(self._flying, (at, next(self._order), way, packet))


def send(address: str, size: int, congestion: str) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        print("ready", flush=True)
        sock.connect((address, PORT))
        sock.sendall(bytes(size))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)


def receive(address: str, size: int, _: str) -> None:
    with socket.create_server((address, PORT)) as server:
        print("ready", flush=True)
        sock, _peer = server.accept()
        received, began = 0, 0.0
        while data := sock.recv(CHUNK):
            received += len(data)
            began = began or time.perf_counter()
            if received == size:
                print(size / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    {"send": send, "receive": receive}[sys.argv[1]](sys.argv[2], int(sys.argv[3]), sys.argv[4])
