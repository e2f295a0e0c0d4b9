"""How many reads find nothing, and how soon a reader notices that datagrams have begun to come together."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from wgpy.net.receiving import Reader

SENDER = ("192.0.2.1", 51820)


class Queue:
    """What a Reader needs of a socket: each read takes one datagram, and those that found none are counted."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.in_vain = 0

    def recvmsg_into(self, buffers: list[memoryview], space: int) -> tuple[int, list[Any], int, Any]:
        if not self.waiting:
            self.in_vain += 1
            raise BlockingIOError
        datagram = self.waiting.pop(0)
        buffers[0][: len(datagram)] = datagram
        return len(datagram), [], 0, SENDER


def reader(queue: Queue) -> Reader:
    sock: Any = queue
    assert not isinstance(sock, socket.socket)
    made = Reader(sock, carries_data=True, carries_handshakes=False)
    assert made.receive() is None  # as before anything has come
    return made


def call(made: Reader) -> list[int]:
    """What the data path does when the loop calls; the numbers of datagrams that were handed over together."""
    counts = []
    while (received := made.receive()) is not None:
        counts.append(len(received.datagrams))
        if received.is_alone:
            break
    return counts


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
