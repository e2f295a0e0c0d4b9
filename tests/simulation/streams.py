"""TCP between the hosts of a world: every byte is delivered once and in order, or the connection ends with an error.

Each host has a `wgpy.stack` of its own behind its Device. An application at each end writes, reads and closes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random
from typing import Final

from tests.support.world import Host, World
from wgpy.stack.host import Host as StackHost
from wgpy.stack.news import Listener
from wgpy.stack.tcp.connection import Connection
from wgpy.stack.tcp.state import OPENING, State

PORT: Final = 80
MTU: Final = 1408  # a multiple of 16, so that `Eve` sees all lengths rounded
MOST: Final = 6  # streams at one time
ROOM: Final = 1 << 16  # bytes that an application writes ahead
SIZES: Final = (0, 1, 1_000, 20_000, 60_000)
# Seconds on a good network until all has been delivered: the longest pause between two tries, and some round trips.
DELIVERED: Final = 130.0
FORGOTTEN: Final = 61.0  # TIME-WAIT is over
WHOLE, RESTARTED = "whole", "restarted"

Demand = Callable[[bool, str], None]


@dataclass(eq=False)
class End:
    """One end of a stream. `outcome` is empty while it goes on; then WHOLE, RESTARTED, or the name of an errno."""

    host: Host
    writes: bytes
    expects: bytes
    connection: Connection | None = None
    written: int = 0
    read: int = 0
    outcome: str = ""


class Streams:
    """What is open between the hosts, and what has become of each end."""

    def __init__(self, world: World, hosts: list[Host], demand: Demand) -> None:
        self._world, self._hosts, self._demand = world, hosts, demand
        self._random = Random(world.random.random())
        self._listeners: dict[str, Listener] = {}
        self._open: list[tuple[End, End]] = []
        self.outcomes: list[str] = []
        for host in hosts:
            self._give_stack(host)

    def _give_stack(self, host: Host) -> None:
        stack = StackHost([ip_address(host.inner).packed], mtu=MTU, random=self._random.randbytes)
        host.stack = stack
        self._listeners[host.name] = stack.listen(None, PORT)

    def open(self, caller: Host, called: Host) -> None:
        """Begin one, if there are not too many, with some bytes for each direction."""
        if len(self._open) >= MOST or caller.asleep:
            return
        up, down = (self._random.randbytes(self._random.choice(SIZES)) for _ in range(2))
        ends = End(caller, up, down), End(called, down, up)
        assert caller.stack is not None
        ends[0].connection = caller.stack.connect(ip_address(called.inner).packed, PORT, self._world.now)
        self._open.append(ends)
        self._world.pump(caller)

    def restarted(self, host: Host) -> None:
        """A host has forgotten everything."""
        for end in (end for ends in self._open for end in ends if end.host is host and not end.outcome):
            self._end(end, RESTARTED)
        self._give_stack(host)

    def turn(self) -> None:
        """Every application that is awake does what it can."""
        for host in self._hosts:
            self._accept(host)
        for ends in self._open:
            for end, other in (ends, ends[::-1]):
                if not end.outcome and not end.host.asleep:
                    self._work(end, other)
        self._open = [ends for ends in self._open if not (ends[0].outcome and ends[1].outcome)]

    def settle(self) -> None:
        """After a while on a good network: nothing is still on its way, and nothing is held any more."""
        for ends in list(self._open):
            for end, other in (ends, ends[::-1]):
                stuck = f"a stream to {other.host.name} hangs in {end.connection and end.connection.state}"
                self._demand(bool(end.outcome) or other.outcome not in ("", WHOLE), f"{end.host.name}: {stuck}")
                if not end.outcome and end.connection is not None:  # it only reads, and nobody writes any more
                    end.connection.abort()
                    self._wake(end)
                end.outcome = end.outcome or RESTARTED
        self._open.clear()

    def check_empty(self) -> None:
        for host in self._hosts:
            assert host.stack is not None
            left = len(host.stack._connections)
            self._demand(left == 0, f"{host.name} has {left} connections of streams that have ended")
            self._demand(host.stack._budget.promised == 0, f"{host.name} has windows of streams that have ended")

    def _accept(self, host: Host) -> None:
        assert host.stack is not None
        while (connection := host.stack.accept(self._listeners[host.name])) is not None:
            names = connection.names
            for caller, called in self._open:
                known = caller.connection.names if caller.connection else None
                if called.host is host and known and (known.local, known.local_port) == names[2:]:
                    self._demand(called.connection is None, f"{host.name} accepts a stream twice")
                    called.connection = connection
                    break
            else:  # its caller is gone
                connection.abort()
                host.stack.wake(connection)
                self._world.pump(host)

    def _work(self, end: End, other: End) -> None:
        connection = end.connection
        if connection is None:
            if other.outcome:
                self._end(end, other.outcome)
            return
        worked = False
        while data := connection.read():
            self._demand(end.expects.startswith(data, end.read), f"{end.host.name} reads what was not written")
            end.read += len(data)
            worked = True
        if connection.error is not None:
            self._fail(end, other, connection.error)
            return
        buffer = connection.sender.buffer
        while connection.state not in OPENING and end.written < len(end.writes) and buffer.end - buffer.start < ROOM:
            piece = end.writes[end.written : end.written + self._random.randrange(1, 20_000)]
            connection.write(piece)
            end.written += len(piece)
            worked = True
        if end.written == len(end.writes) and not connection.sender.fin_wanted:
            connection.shutdown()
            worked = True
        if worked:
            self._wake(end)
        if connection.state in (State.TIME_WAIT, State.CLOSED):
            self._demand(end.read == len(end.expects), f"{end.host.name} reads an end before the end")
            self._end(end, WHOLE)

    def _fail(self, end: End, other: End, error: OSError) -> None:
        name = errno.errorcode[error.errno or 0]
        allowed = {"ETIMEDOUT"}
        if other.connection is None:  # no client has told the server yet where it is; or the half-open end has given up
            allowed |= {"EHOSTUNREACH", "ECONNRESET"}
        if other.outcome not in ("", WHOLE):
            allowed |= {"ECONNRESET", "EPIPE"}
        self._demand(name in allowed, f"{end.host.name}: {name}, but the other end {other.outcome or 'goes on'}")
        self._end(end, name)

    def _end(self, end: End, outcome: str) -> None:
        end.outcome = outcome
        self.outcomes.append(outcome)

    def _wake(self, end: End) -> None:
        assert end.host.stack is not None
        assert end.connection is not None
        end.host.stack.wake(end.connection)
        self._world.pump(end.host)
