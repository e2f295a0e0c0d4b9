"""The data path: how much is read before others get their turn."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from tests.support.bursts import burst_of, tcp_run
from wgpy.burst import Burst
from wgpy.datapath import DataPath
from wgpy.device.device import Device
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
