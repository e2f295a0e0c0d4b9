"""Which of a port's sockets is read when: strangers wait while data waits, and only then.

Time that data does not need goes to everyone else who has sent something, so no queue is left unread while the loop is
idle. While data keeps the loop busy, the other queues get an eighth of the time for what turns out to be of no use.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct
from typing import Final

from wgpy.device.load import LoadMeter
from wgpy.net.receiving import Reader

SLICE: Final = 0.0005  # seconds for which a queue of strangers is read before data is looked for again
BUDGET_SHARE: Final = 0.125  # of the time, while data keeps coming
MAX_BUDGET: Final = 0.001  # seconds that are saved up at most
MESSAGE_ROOM: Final = 768  # bytes that a handshake message takes of a socket's buffer, at least

SO_MEMINFO: Final = 55  # a Linux constant that the socket module of Python 3.11 lacks
_MEMINFO: Final = Struct("=II")  # linux/sock_diag.h: SK_MEMINFO_RMEM_ALLOC, SK_MEMINFO_RCVBUF

Readable = Callable[[socket.socket], bool]


class WorkBudget:
    """The time that strangers may use up for nothing while data keeps coming. Times are in seconds."""

    def __init__(self) -> None:
        self._left = MAX_BUDGET
        self._since = 0.0

    def is_left(self, now: float) -> bool:
        """Whether some is left at `now`; it grows with the time that passes."""
        self._left = min(MAX_BUDGET, self._left + (now - self._since) * BUDGET_SHARE)
        self._since = now
        return self._left > 0

    def spend(self, seconds: float) -> None:
        """Take away time that strangers used up for nothing."""
        # At most what can be saved up: a process that was kept from running meanwhile owes nothing for that.
        self._left = max(self._left - seconds, -MAX_BUDGET)


class _Queue:
    """One socket's place in the schedule."""

    __slots__ = ("calls", "data_turns_seen", "reader")

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.calls = 0
        self.data_turns_seen = 0


class Schedule:
    """Has the event loop read each socket of a port in its turn."""

    data_turns: int
    """Turns of the loop in which data came or went. The sender of data adds to it."""
    under_load: bool
    """Whether so many handshake messages wait in the socket being read, or waited, that cookies are due."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.data_turns = 0
        self.under_load = False
        self._queues = [_Queue(reader) for reader in readers]
        self._budget = WorkBudget()
        self._load = LoadMeter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readable: Readable = lambda sock: False

    def start(self, loop: asyncio.AbstractEventLoop, readable: Readable) -> None:
        """Call `readable(sock)` whenever it is a socket's turn. It returns whether what it read was of use."""
        self._loop, self._readable = loop, readable
        for queue in self._queues:
            loop.add_reader(queue.reader.socket.fileno(), self._ready, queue)

    def stop(self) -> None:
        """Call `readable` no more."""
        if self._loop is not None:
            for queue in self._queues:
                self._loop.remove_reader(queue.reader.socket.fileno())
            self._loop = None

    def _ready(self, queue: _Queue) -> None:
        if self._loop is None:
            return
        queue.calls += 1
        reader = queue.reader
        if reader.carries_data and not reader.carries_handshakes:
            if self.under_load:
                self.under_load = self._load.is_present(0.0, 1.0, time.monotonic())
            self.data_turns += self._readable(reader.socket)
        else:
            self._share_time(queue, time.monotonic())
        if reader.held and self._loop:  # the socket knows nothing of it, so the loop would not call
            again = partial(self._call_again, queue, queue.calls)
            if reader.carries_data:
                self._loop.call_soon(again)
            else:  # in the turn of the loop after the next, so that data has its turn in between
                self._loop.call_soon(self._loop.call_soon, again)

    def _share_time(self, queue: _Queue, now: float) -> None:
        """Read a queue that carries handshakes, if there is time for it."""
        reader = queue.reader
        data_waits = queue.data_turns_seen != self.data_turns
        queue.data_turns_seen = self.data_turns
        if reader.carries_data:
            self._read_data(reader, now)
        elif not data_waits or self._budget.is_left(now):
            self._read_strangers(reader, now, data_waits=data_waits)

    def _read_data(self, reader: Reader, now: float) -> None:
        self.under_load = self._load.is_present(*_handshakes_waiting(reader.socket), now)
        self.data_turns += self._readable(reader.socket)
        self._load.handled(reader.take_count(), time.monotonic() - now)

    def _read_strangers(self, reader: Reader, began: float, *, data_waits: bool) -> None:
        """Read for a slice of time; what was of no use is taken from the budget while data waits."""
        self.under_load = self._load.is_present(*_handshakes_waiting(reader.socket), began)
        was_of_use, reader.is_dry, now = False, False, began
        while self._loop and not reader.is_dry and now < began + SLICE:
            was_of_use |= self._readable(reader.socket)
            now = time.monotonic()
        self._load.handled(reader.take_count(), now - began)
        if data_waits and not was_of_use:
            self._budget.spend(now - began)

    def _call_again(self, queue: _Queue, calls: int) -> None:
        if queue.calls == calls:  # the loop has not called meanwhile
            self._ready(queue)


def _handshakes_waiting(sock: socket.socket) -> tuple[float, float]:
    """How many handshake messages may wait in a socket, and how many can; (0, 1) if the system does not tell."""
    try:
        used, room = _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size))
    except OSError:
        return 0.0, 1.0
    return used / MESSAGE_ROOM, room / MESSAGE_ROOM
