"""What is sent again and was only late: the window is given back, and little is repeated (RFC 3522, 3708, 4015)."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from tests.stack.line import PORT, Application, Faults, Line
from wgpy.stack.tcp.state import State


class Upload:
    """A connection that always has something to send, once its window has grown to 100 segments."""

    def __init__(self, faults: Faults | None = None, *, stamps: bool = True) -> None:
        self.line = Line(faults=faults or Faults())
        self.sent = 0  # bytes, what was repeated too
        self.line.seen = self.look
        here, there = self.line.hosts
        listener = there.listen(None, PORT)
        self.connection = here.connect(self.line.addresses[1], PORT, self.line.now)
        self.connection.framing.has_stamps = stamps
        self.line.run(lambda: self.connection.state is State.ESTABLISHED and listener.waiting)
        self.ends = Application(self.connection, bytes(20_000_000)), Application(there.accept(listener))
        self.sender = self.connection.sender
        self.go_on(lambda: self.window > 100)

    @property
    def window(self) -> float:
        """The congestion window, in segments."""
        return self.sender.congestion.window / self.sender.segment

    @property
    def repeated(self) -> float:
        """How many segments have left again."""
        return (self.sent - self.sender.next + 1) / self.sender.segment

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
        """Until all that has been sent so far is acknowledged, and a second more."""
        end, until = self.sender.next, self.line.now + 1
        self.go_on(lambda: self.sender.acknowledged >= end and self.line.now > until)


@pytest.mark.parametrize("seconds", [0.3, 0.6, 2.0, 10.0])
def test_a_delay_is_no_loss(seconds: float) -> None:
    """However many timeouts pass meanwhile, little more than one segment for each is sent in vain."""
    upload = Upload()
    before = upload.window
    upload.line.stalled_until = upload.line.now + seconds
    upload.go_on(lambda: upload.sender.trips.timeout > 0.3)
    assert upload.window == 1
    upload.go_on(lambda: upload.sender.congestion.window > 2 * 1368)
    assert upload.window >= before
    assert upload.sender.congestion.threshold == inf
    assert upload.sender.trips.smoothed > 0.05  # it is learnt from
    upload.deliver()
    assert upload.window >= before
    assert not upload.sender.is_recovering
    assert upload.repeated <= 12


def test_without_timestamps_the_peers_word_of_duplicates_gives_the_window_back() -> None:
    upload = Upload(stamps=False)
    before = upload.window
    upload.line.stalled_until = upload.line.now + 0.6
    upload.go_on(lambda: upload.window == 1)
    upload.deliver()
    assert upload.window >= before
    assert upload.sender.congestion.threshold == inf


def test_a_timeout_that_was_right_stays_one() -> None:
    upload = Upload()
    upload.line.faults.mtu = 1000  # acknowledgements alone pass
    upload.go_on(lambda: upload.window == 1)
    upload.line.faults.mtu = 1500
    threshold = upload.sender.congestion.threshold
    upload.deliver()
    assert upload.sender.congestion.threshold == threshold


def test_only_the_first_of_several_timeouts_lowers_the_threshold() -> None:
    upload = Upload()
    upload.line.faults.loss = 1.0
    upload.go_on(lambda: upload.window == 1)
    threshold, until = upload.sender.congestion.threshold, upload.line.now + 10
    upload.go_on(lambda: upload.line.now > until)
    assert upload.sender.congestion.threshold == threshold
    assert upload.sender.congestion.window <= 1368


def test_packets_that_are_overtaken_are_soon_waited_for() -> None:
    """RFC 8985, 6.2, step 4: the first may be taken for lost; of 14,600 packets 146 are late."""
    upload = Upload(Faults(delay=0.002, late=0.01, late_by=0.003))
    upload.go_on(lambda: upload.ends[0].written == len(upload.ends[0].data))
    assert upload.repeated <= 20
    assert upload.window > 100
    assert upload.sender.congestion.threshold > 100 * upload.sender.segment
