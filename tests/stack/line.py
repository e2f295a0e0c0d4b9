"""Two hosts and a line between them that loses, repeats, delays and corrupts, on a virtual clock, from one seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from ipaddress import ip_address
from itertools import count
from math import inf
from typing import Any

from wgpy.burst import Burst
from wgpy.stack.host import Host
from wgpy.stack.news import News
from wgpy.stack.tcp.connection import Connection
from wgpy.stack.tcp.patience import Settings
from wgpy.stack.tcp.state import State

PORT = 80


@dataclass
class Faults:
    """Of each packet, the probability that it is lost, and so on; seconds."""

    loss: float = 0.0
    repeat: float = 0.0
    late: float = 0.0
    late_by: float = 0.02
    corrupt: float = 0.0
    delay: float = 0.01
    mtu: int = 65535  # what is longer is lost on the way
    burst: bool = False  # what arrives at one time comes together


@dataclass
class Application:
    """Writes `data`, then closes its side; keeps what comes."""

    connection: Connection | None = None
    data: bytes = b""
    written: int = 0
    received: bytearray = field(default_factory=bytearray)
    reads: bool = True
    closes: bool = True

    def run(self, host: Host, room: int = 1 << 20) -> None:
        connection = self.connection
        if connection is None or connection.state in (State.SYN_SENT, State.SYN_RECEIVED):
            return
        worked = False
        while self.written < len(self.data) and connection.sender.buffer.end - connection.sender.buffer.start < room:
            piece = self.data[self.written : self.written + 50_000]
            connection.write(piece)
            self.written += len(piece)
            worked = True
        if self.closes and self.written == len(self.data) and not connection.sender.fin_wanted:
            connection.shutdown()
            worked = True
        while self.reads and (data := connection.read()):
            self.received += data
            worked = True
        if worked:
            host.wake(connection)


class Line:
    """Moves packets between hosts `one` and `other` until nothing is to be done any more."""

    def __init__(self, seed: int = 0, faults: Faults | None = None, *, v6: bool = False, mtu: int = 1420) -> None:
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        names = ("fd00::1", "fd00::2") if v6 else ("10.0.0.1", "10.0.0.2")
        self.addresses = [ip_address(name).packed for name in names]
        self.hosts = [Host([address], mtu=mtu, random=self.random.randbytes) for address in self.addresses]
        self.now = 1000.0
        self.stalled_until = 0.0  # what is sent before that arrives after it, in order
        self.flying: list[tuple[float, int, int, bytes]] = []
        self.order = count()
        self.news: list[News] = []
        self.seen: Callable[[int, bytes], None] = lambda to, packet: None

    def carry(self, sender: int, burst: Burst) -> None:
        for packet in burst.packets():
            self.seen(1 - sender, bytes(packet))
            if self.random.random() < self.faults.loss or len(packet) > self.faults.mtu:
                continue
            for _ in range(2 if self.random.random() < self.faults.repeat else 1):
                data = bytearray(packet)
                if self.random.random() < self.faults.corrupt:
                    data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
                at = max(self.now, self.stalled_until) + self.faults.delay
                if self.random.random() < self.faults.late:
                    at += self.random.random() * self.faults.late_by
                heappush(self.flying, (at, next(self.order), 1 - sender, bytes(data)))

    def flush(self) -> None:
        """Everything that hosts want to send leaves."""
        for i, host in enumerate(self.hosts):
            while (burst := host.transmit(self.now)) is not None:
                self.carry(i, burst)

    def step(self) -> bool:
        """Let time pass until something happens; False if nothing will."""
        at = min([host.next_timeout() for host in self.hosts] + [self.flying[0][0] if self.flying else inf])
        if at == inf:
            return False
        self.now = max(self.now, at)
        arrived: dict[int, list[bytes]] = {}
        while self.flying and self.flying[0][0] <= self.now:
            _, _, to, data = heappop(self.flying)
            arrived.setdefault(to, []).append(data)
        for to, packets in arrived.items():
            if self.faults.burst:
                for burst in bursts(packets):
                    self.hosts[to].collect(burst, self.now)
                self.tell(to, self.hosts[to].handle(self.now))
            else:
                for packet in packets:
                    self.tell(to, self.hosts[to].receive(Burst.of(packet), self.now))
        for i, host in enumerate(self.hosts):
            self.tell(i, host.handle_timeout(self.now))
        return True

    def tell(self, i: int, news: News) -> None:
        self.news.append(news)

    def run(self, done: Callable[[], Any], limit: float = 600.0) -> None:
        """Until `done` returns something true. Fails after `limit` seconds of virtual time."""
        end = self.now + limit
        while True:
            self.flush()
            if done():
                return
            assert self.step(), "nothing happens any more"
            assert self.now < end, f"not done in {limit:g} s"


def bursts(packets: list[bytes]) -> list[Burst]:
    """Packets as a Device delivers them: in slots of one stride, as long as they fit."""
    found = []
    while packets:
        longest = len(packets[0])
        count = next((i for i, packet in enumerate(packets) if len(packet) > longest), len(packets))
        group, packets = packets[:count], packets[count:]
        stride = -(-longest // 16) * 16 + 32
        view = memoryview(bytearray(stride * len(group)))
        for i, packet in enumerate(group):
            view[i * stride + 16 : i * stride + 16 + len(packet)] = packet
        found.append(Burst(view, stride, [len(packet) for packet in group]))
    return found


def transfer(
    line: Line, up: bytes, down: bytes, *, settings: Settings | None = None, limit: float = 600.0
) -> tuple[Application, Application]:
    """Send `up` from the first host to the second and `down` back; both close. Returns the two ends."""
    listener = line.hosts[1].listen(None, PORT)
    connection = line.hosts[0].connect(line.addresses[1], PORT, line.now, settings=settings)
    ends = Application(connection, up), Application(None, down)

    def work() -> bool:
        if ends[1].connection is None:
            ends[1].connection = line.hosts[1].accept(listener)
        for end, host in zip(ends, line.hosts, strict=True):
            end.run(host)
        line.flush()
        return all(
            end.connection is not None and end.connection.state in (State.TIME_WAIT, State.CLOSED) for end in ends
        )

    line.run(work, limit)
    return ends


def digest(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()
