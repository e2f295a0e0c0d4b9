"""Bytes through bad lines: whatever is lost, late, repeated or corrupted, both ends get what the other wrote."""

from __future__ import annotations

import random

import pytest

from tests.stack.line import PORT, Faults, Line, digest, transfer
from wgpy.stack.memory import Budget
from wgpy.stack.tcp.flights import Leaving
from wgpy.stack.tcp.receiving import FIRST_WINDOW, Receiver
from wgpy.stack.tcp.sending import Sender
from wgpy.stack.tcp.state import State


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("burst", [False, True])
def test_a_clean_line_carries_data_both_ways(v6: bool, burst: bool) -> None:
    up, down = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(1_000_001)
    line = Line(faults=Faults(burst=burst), v6=v6)
    one, other = transfer(line, up, down)
    assert digest(other.received) == digest(up)
    assert digest(one.received) == digest(down)
    assert one.connection is not None
    assert one.connection.error is None
    assert sum(host.drops.total() for host in line.hosts) == 0


@pytest.mark.parametrize("seed", range(60))
def test_transfers_survive_bad_lines(seed: int) -> None:
    chance = random.Random(seed)
    faults = Faults(
        loss=chance.choice([0.0, 0.01, 0.05, 0.2]),
        repeat=chance.choice([0.0, 0.05]),
        late=chance.choice([0.0, 0.1, 0.5]),
        corrupt=chance.choice([0.0, 0.02]),
        burst=chance.random() < 0.5,
    )
    up, down = (chance.randbytes(chance.choice([0, 1, 5000, 200_000, 1_000_000])) for _ in range(2))
    line = Line(seed, faults, v6=bool(seed & 1))
    one, other = transfer(line, up, down, limit=900)
    assert digest(other.received) == digest(up)
    assert digest(one.received) == digest(down)


def test_a_connection_that_waits_for_one_lost_segment_is_not_idle() -> None:
    """All others have come and nothing is under way: the window is reduced for the loss, and not restarted as well."""
    line = Line()
    line.hosts[1].listen(None, PORT)
    connection = line.hosts[0].connect(line.addresses[1], PORT, line.now)
    sender = connection.sender
    line.run(lambda: connection.state is State.ESTABLISHED)
    segment = sender.segment
    sender.congestion.window = sender.congestion.threshold = 31.0 * segment
    line.faults.loss = 1.0
    for count in (1, 44):
        connection.write(bytes(count * segment))
        line.hosts[0].wake(connection)
        line.flush()
        line.faults.loss, sender.idle_since = 0.0, line.now - 100
    windows: list[float] = []

    def done() -> bool:
        windows.append(sender.congestion.window / segment)
        return sender.acknowledged > 44 * segment

    line.run(done)
    assert min(windows) == pytest.approx(0.7 * 31)


def test_the_first_lost_segment_is_sent_again_at_once() -> None:
    """One segment, though more is under way than the reduced window allows (RFC 6675, 5, step 4.3)."""
    sender = Sender(1000)
    sender.acknowledged = sender.next = 1
    sender.has_sack, sender.window = True, 1 << 20
    sender.write(bytes(30_000))
    for number in range(10):
        leaving = sender.leaving(1000, nodelay=True)
        assert leaving is not None
        sender.left(leaving, 0.001 * number)
    sender.acknowledge(1, [(1001, 4001)], 0.1, is_duplicate=True)
    assert sender.in_flight + 1000 > sender.congestion.window - 1000
    first = sender.leaving(10_000, nodelay=True)
    assert first == Leaving(1, 1001, True)
    sender.left(first, 0.1)
    assert sender.leaving(10_000, nodelay=True) is None


def test_a_segment_that_arrives_before_its_retransmission_was_not_lost() -> None:
    sender = Sender(1000)
    sender.acknowledged = sender.next = 1
    sender.has_sack, sender.window = True, 1 << 20
    sender.write(bytes(30_000))
    sender.left(Leaving(1, 1001, False), 0.0)
    sender.left(Leaving(1001, 10_001, False), 0.001)
    before = sender.congestion.window
    sender.acknowledge(1, [(1001, 10_001)], 0.1, is_duplicate=True)
    assert sender.congestion.window == 0.7 * before
    sender.acknowledge(10_001, [], 0.103, is_duplicate=False)
    assert sender.congestion.window >= before
    assert not sender.is_recovering


@pytest.mark.parametrize("size", [1368, 1208, 800])
def test_every_second_segment_is_acknowledged_at_once(size: int) -> None:
    """As RFC 5681, 4.2 asks: segments are shorter than the MSS by their options, or by the path's MTU."""
    receiver = Receiver(Budget(1 << 20), 1380)
    receiver.begin(7)
    assert receiver.window() == FIRST_WINDOW
    acknowledged = []
    for number in range(40):
        receiver.take(1 + number * size, bytes(size), is_last=False, now=0.0)
        acknowledged.append(receiver.ack_now)
        if receiver.ack_now:
            receiver.acknowledged()
    assert acknowledged[20:] == [False, True] * 10 or acknowledged[20:] == [True, False] * 10
