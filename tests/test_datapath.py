"""The data path: how much is read before others get their turn."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from tests.support.bursts import burst_of, tcp_run
from wgpy.burst import Burst
from wgpy.datapath import MAX_LEFT, DataPath
from wgpy.device.device import Device
from wgpy.net.memory import MemoryNetwork
from wgpy.tun.memory import MemoryTun


class FullTun(MemoryTun):
    """A TUN from which a burst of `packets` packets can be read at any time."""

    def __init__(self, packets: int) -> None:
        super().__init__()
        self.burst = burst_of(*tcp_run(packets))
        self.reads_at: list[int] = []  # the turns of the loop in which bursts were read
        self.turn = 0
        self.third_turn = asyncio.Event()

    def _has_packets(self) -> bool:
        return True

    def _readable(self) -> None:
        self.turn += 1
        super()._readable()
        if self.turn == 3:
            self.third_turn.set()

    def read(self) -> Burst | None:
        self.reads_at.append(self.turn)
        return self.burst


@pytest.mark.parametrize(("packets", "reads"), [(45, 2), (20, 4), (1, 12), (200, 1)])
def test_a_turn_reads_two_long_bursts_from_the_tun_or_more_short_ones(packets: int, reads: int) -> None:
    async def run() -> None:
        tun = FullTun(packets)
        device = Device(random=os.urandom, wall_clock=time.time_ns)
        path = DataPath(device, tun, time.monotonic, report=print, fail=print)
        path.start()
        await tun.third_turn.wait()
        tun.stop_reading()
        assert [tun.reads_at.count(turn) for turn in (1, 2, 3)] == [reads] * 3

    asyncio.run(run())


def test_what_is_dropped_when_the_link_goes_down_is_bounded() -> None:
    """The link may be up again already, and somebody send faster than we read."""

    async def run() -> None:
        tun = FullTun(1)
        device = Device(random=os.urandom, wall_clock=time.time_ns)
        DataPath(device, tun, time.monotonic, report=print, fail=print).drop_held()
        assert len(tun.reads_at) == MAX_LEFT
        assert device.status().drops == {"interface_down": MAX_LEFT}

    asyncio.run(run())


def test_the_tun_is_not_read_before_the_path_has_been_started() -> None:
    """Not even when the socket has room again: packets for peers that are not configured yet would be refused."""

    async def run() -> None:
        tun = MemoryTun()
        host = MemoryNetwork().host("192.0.2.1")
        path = DataPath(
            Device(random=os.urandom, wall_clock=time.time_ns), tun, time.monotonic, report=print, fail=print
        )
        path.open(host.open())
        path._send_waiting()
        assert tun._reader is None
        path.start()
        assert tun._reader is not None
        path.close()

    asyncio.run(run())
