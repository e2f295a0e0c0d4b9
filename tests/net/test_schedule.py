"""Whose turn it is to be read, and whether so much waits that it is load."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace

import pytest

from tests.net.test_udp import receiver as receiver
from tests.net.test_udp import sender as sender
from wgpy.burst import Datagrams
from wgpy.endpoint import Endpoint
from wgpy.net import schedule as schedule_module
from wgpy.net.queues import SORT_EVERY
from wgpy.net.udp import UdpSockets


@pytest.mark.parametrize(("data_waits", "share"), [("", 1.0), ("in", 0.125), ("out", 0.125)])
def test_strangers_wait_while_data_waits_and_only_then(
    sender: UdpSockets, receiver: UdpSockets, monkeypatch: pytest.MonkeyPatch, data_waits: str, share: float
) -> None:
    """Each read takes 0.3 ms. Of a hundred turns in which data comes or goes, strangers have an eighth of the time."""
    clock = [100.0]
    monkeypatch.setattr(schedule_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    data, worthless = bytes((4, 0, 0, 0)), bytes((9, 0, 0, 0))
    seen = list[bytes]()
    to_receiver, to_sender = Endpoint("127.0.0.1", receiver.port), Endpoint("127.0.0.1", sender.port)

    def readable(sock: socket.socket) -> bool:
        received = receiver.receive(sock)
        if received is None:
            return False
        clock[0] += 0.0003
        seen.append(bytes(received.datagrams.view[:4]))
        return seen[-1] == data

    async def run() -> None:
        loop = asyncio.get_running_loop()
        receiver.start_reading(loop, readable)
        receiver.send(Datagrams.of(data), to_sender, 0)  # whose data it then knows
        await asyncio.sleep(2 * SORT_EVERY)
        for number in range(300):  # each longer than the last, or much shorter, so that each is read alone
            sender.send(Datagrams.of(worthless + bytes(number % 100)), to_receiver, 0)
        for number in range(100):
            clock[0] += 0.001
            if data_waits == "in":
                sender.send(Datagrams.of(data + bytes(number)), to_receiver, 0)
            elif data_waits == "out":
                receiver.send(Datagrams.of(data), to_sender, 0)
            await asyncio.sleep(0)
        receiver.stop_reading(loop)

    began = clock[0]
    asyncio.run(run())
    in_vain = 0.0003 * seen.count(worthless)
    if data_waits:
        assert 0.5 * share <= in_vain / (clock[0] - began) <= 1.1 * share
    else:
        assert seen.count(worthless) >= 190, "every turn is a stranger's"


def test_a_port_with_a_full_queue_is_under_load(sender: UdpSockets, receiver: UdpSockets) -> None:
    """By what waits in the socket, for as long as the reader does not come to it."""
    loads: dict[socket.socket, bool] = {}
    initiation = bytes((1, 0, 0, 0)) + bytes(144)

    def readable(sock: socket.socket) -> bool:
        received = receiver.receive(sock)
        if received is not None:
            loads.setdefault(sock, received.under_load)
        return False

    async def run() -> None:
        receiver.start_reading(asyncio.get_running_loop(), readable)
        await asyncio.sleep(0.01)
        receiver.stop_reading(asyncio.get_running_loop())

    to_receiver = Endpoint("127.0.0.1", receiver.port)
    for _ in range(64):
        sender.send(Datagrams.of(initiation), to_receiver, 0)
    asyncio.run(run())
    assert list(loads.values()) == [False], "so few are no load"
    loads.clear()
    for _ in range(20_000):
        sender.send(Datagrams.of(initiation), to_receiver, 0)
    asyncio.run(run())
    assert list(loads.values()) == [True]
