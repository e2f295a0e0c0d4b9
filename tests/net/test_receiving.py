"""What a reader reads together, how many reads find nothing, and how soon it notices that datagrams come together."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from wgpy.net.datagrams import Received
from wgpy.net.receiving import MAX_KEPT, MAX_ORIGINS, Reader

SENDER = ("192.0.2.1", 51820)
OTHERS = [(f"192.0.2.{number}", 51820) for number in range(2, 9)]


class Queue:
    """What a Reader needs of a socket: each read takes one datagram, and those that found none are counted."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.senders: list[tuple[str, int]] = []  # of those that wait; then it is SENDER
        self.in_vain = 0

    def recvmsg_into(self, buffers: list[memoryview], space: int) -> tuple[int, list[Any], int, Any]:
        if not self.waiting:
            self.in_vain += 1
            raise BlockingIOError
        datagram = self.waiting.pop(0)
        buffers[0][: len(datagram)] = datagram
        return len(datagram), [], 0, self.senders.pop(0) if self.senders else SENDER


def reader(queue: Queue, *, carries_data: bool = True, carries_handshakes: bool = False) -> Reader:
    sock: Any = queue
    assert not isinstance(sock, socket.socket)
    made = Reader(sock, carries_data=carries_data, carries_handshakes=carries_handshakes)
    assert made.receive() is None  # as before anything has come
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The reader's time, which stands still until a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("wgpy.net.receiving.monotonic", lambda: now[0])
    return now


def call(made: Reader) -> list[int]:
    """What the data path does when the loop calls; the numbers of datagrams that were handed over together."""
    received = made.receive()
    return [len(received.datagrams)] if received is not None else []


def test_single_datagrams_cause_few_empty_reads() -> None:
    queue = Queue()
    made = reader(queue)
    for _ in range(10):
        queue.waiting.append(bytes(100))
        call(made)
    queue.in_vain = 0
    for _ in range(80):
        queue.waiting.append(bytes(100))
        assert call(made) == [1]
    assert queue.in_vain <= 80 // 7


@pytest.mark.parametrize("together", [2, 4, 7, 8, 15])
@pytest.mark.usefixtures("clock")
def test_datagrams_that_begin_to_come_together_are_noticed(together: int) -> None:
    queue = Queue()
    made = reader(queue)
    for _ in range(20):
        queue.waiting.append(bytes(100))
        call(made)
    calls: list[list[int]] = []
    for _ in range(20):
        queue.waiting += [bytes(100)] * together
        while queue.waiting:  # as long as some wait, the loop calls
            calls.append(call(made))
    assert sum(map(sum, calls)) == 20 * together
    assert calls[-8:] == [[together]] * 8


@pytest.mark.parametrize("carries_handshakes", [False, True])
def test_the_first_datagram_after_a_rest_is_handed_over_without_a_look(
    clock: list[float], carries_handshakes: bool
) -> None:
    queue = Queue()
    made = reader(queue, carries_handshakes=carries_handshakes)
    queue.waiting.append(bytes(100))
    assert call(made) == [1]
    queue.in_vain = 0
    for _ in range(20):
        clock[0] += 0.2
        queue.waiting.append(bytes(100))
        assert call(made) == [1]
    assert queue.in_vain == 0
    clock[0] += 0.2
    queue.waiting += [bytes(100)] * 5
    assert [call(made), call(made)] == [[1], [4]]  # the loop calls as long as some wait


def origins(received: Received) -> list[tuple[str, bytes]]:
    """Each datagram with its sender."""
    found = []
    senders = {first: source for first, source, _ in received.senders}
    source = received.source
    for number, datagram in enumerate(received.datagrams):
        source = senders.get(number, source)
        found.append((source.host, bytes(datagram)))
    return found


def test_a_lone_datagram_has_its_own_sender_and_content_whatever_came_before(clock: list[float]) -> None:
    queue = Queue()
    made = reader(queue)
    for number, sender in enumerate([SENDER, SENDER, OTHERS[0], SENDER, SENDER, OTHERS[0], OTHERS[1]] * 2):
        clock[0] += 0.2
        datagram = bytes([number]) * (100 if number % 3 else 60)
        queue.waiting, queue.senders = [datagram], [sender]
        received = made.receive(under_load=number % 2 == 1)
        assert received is not None
        assert (origins(received), received.under_load) == ([(sender[0], datagram)], number % 2 == 1)


def test_what_is_kept_of_lone_datagrams_is_bounded(clock: list[float]) -> None:
    queue = Queue()
    made = reader(queue)
    for size in range(MAX_KEPT + 100):
        clock[0] += 0.2
        queue.waiting = [bytes(size)]
        received = made.receive()
        assert received is not None
        assert len(received.datagrams.view) == size
        assert len(made._alone) <= MAX_KEPT


def busy(queue: Queue, **options: bool) -> Reader:
    """A reader that has found datagrams together, so that it looks for more."""
    made = reader(queue, **options)
    queue.waiting = [bytes(100)] * 3
    call(made)
    return made


def test_datagrams_of_many_peers_are_read_together_each_with_its_sender() -> None:
    queue = Queue()
    made = busy(queue)
    sent = [(OTHERS[i % 5], bytes([i]) * (100 if i % 3 else 60)) for i in range(40)]
    sent = [sent[1], *sent]  # the first is as long as any, so that all fit
    queue.senders, queue.waiting = map(list, zip(*sent, strict=True))
    received = made.receive()
    assert received is not None
    assert origins(received) == [(host, datagram) for (host, _), datagram in sent]
    assert made.receive() is None


def test_a_short_datagram_in_front_keeps_no_longer_ones_from_being_read_with_it() -> None:
    queue = Queue()
    made = busy(queue)
    for _ in range(3):  # an acknowledgement, and then data
        queue.waiting, queue.senders = [bytes(40), bytes(100), bytes(40), bytes(100)], OTHERS[:4]
        counts = call(made)
    assert counts == [4]
    for _ in range(2):  # acknowledgements alone are soon in slots of their own size
        queue.waiting = [bytes(40)] * 3
        sizes = [received.datagrams.segment_size for received in iter(made.receive, None)]
    assert sizes == [40]


@pytest.mark.parametrize("options", [{"carries_data": False}, {"carries_handshakes": True}])
def test_where_strangers_send_one_senders_datagrams_are_read_at_a_time(options: dict[str, bool]) -> None:
    """So a flood of initiations from many addresses, each with work to do, is never one burst."""
    queue = Queue()
    made = busy(queue, **options)
    queue.waiting, queue.senders = [bytes(100)] * 6, OTHERS[:6]
    assert [call(made) for _ in range(6)] == [[1]] * 6


def test_the_senders_that_are_remembered_are_bounded() -> None:
    queue = Queue()
    made = busy(queue)
    for port in range(3 * MAX_ORIGINS):
        queue.waiting, queue.senders = [bytes(100)], [("192.0.2.9", port)]
        call(made)
    assert len(made._origins) <= MAX_ORIGINS
