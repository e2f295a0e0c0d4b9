"""A connection between two hosts that always has something to send."""

from __future__ import annotations

from collections.abc import Callable

from tests.stack.line import PORT, Application, Faults, Line
from wgpy.stack.tcp.state import State


class Upload:
    """From the first host to the second, begun; the congestion window has grown to 100 segments."""

    def __init__(self, faults: Faults | None = None, *, stamps: bool = True) -> None:
        self.line = Line(faults=faults or Faults())
        self.sent = 0  # bytes, what was repeated too
        self.line.seen = self.look
        here, there = self.line.hosts
        listener = there.listen(None, PORT)
        self.connection = here.connect(self.line.addresses[1], PORT, self.line.now)
        self.connection.framing.has_stamps = stamps
        self.line.run(lambda: self.connection.state is State.ESTABLISHED and listener.waiting)
        self.ends = Application(self.connection, bytes(60_000_000)), Application(there.accept(listener))
        self.sender = self.connection.sender
        self.go_on(lambda: self.window > 100)

    @property
    def window(self) -> float:
        """The congestion window, in segments."""
        return self.sender.congestion.window / self.sender.segment

    @property
    def repeated(self) -> float:
        """How many segments have left again."""
        return (self.sent + 1 - min(self.sender.next, self.sender.buffer.end)) / self.sender.segment

    def look(self, to: int, packet: bytes) -> None:
        if to == 1:
            self.sent += len(packet) - 20 - (packet[32] >> 4) * 4

    def go_on(self, done: Callable[[], object]) -> None:
        def work() -> object:
            for end, host in zip(self.ends, self.line.hosts, strict=True):
                end.run(host)
            self.line.flush()
            return done()

        self.line.run(work)

    def deliver(self) -> None:
        """Until all that has been sent so far is acknowledged, and ten round trips more."""
        end = self.sender.next
        self.go_on(lambda: self.sender.acknowledged >= end)
        until = self.line.now + 0.2
        self.go_on(lambda: self.line.now > until)
