"""The in-process TUN, from both of its sides."""

from __future__ import annotations

import asyncio

import pytest

from wgpy.burst import Burst
from wgpy.errors import TunError
from wgpy.tun.memory import MemoryTun


def test_injected_packets_are_read_in_order() -> None:
    tun = MemoryTun(mtu=1420)
    assert tun.read() is None
    tun.inject(b"first")
    tun.inject(b"second")
    for expected in (b"first", b"second"):
        burst = tun.read()
        assert burst is not None
        assert [bytes(packet) for packet in burst.packets()] == [expected]
        assert len(burst.view) == 16 + 16 + 16
    assert tun.read() is None


def test_written_packets_are_taken_in_order_and_belong_to_the_caller() -> None:
    tun = MemoryTun()
    arrivals: list[int] = []
    tun.on_arrival = lambda: arrivals.append(1)
    burst = Burst(memoryview(bytearray(3 * 48)), 48, [4, 0, 5])
    burst.view[16:20] = b"four"
    burst.view[112:117] = b"fifth"
    tun.write(burst)
    burst.view[:] = bytes(3 * 48)
    assert [tun.take(), tun.take(), tun.take()] == [b"four", b"fifth", None]
    assert arrivals == [1]


def test_the_callback_is_called_until_everything_is_read() -> None:
    async def scenario() -> list[bytes]:
        tun = MemoryTun()
        tun.inject(b"early")
        got: list[bytes] = []

        def readable() -> None:
            burst = tun.read()
            assert burst is not None
            got.append(bytes(burst.packet(0)))

        tun.start_reading(asyncio.get_running_loop(), readable)
        tun.inject(b"late")
        for _ in range(5):
            await asyncio.sleep(0)
        tun.inject(b"before the pause")
        tun.stop_reading()
        tun.inject(b"in the pause")
        for _ in range(5):
            await asyncio.sleep(0)
        assert got == [b"early", b"late"]
        tun.start_reading(asyncio.get_running_loop(), readable)
        for _ in range(5):
            await asyncio.sleep(0)
        return got

    assert asyncio.run(scenario()) == [b"early", b"late", b"before the pause", b"in the pause"]


def test_nothing_passes_a_closed_tun() -> None:
    tun = MemoryTun("mem0")
    tun.close()
    tun.close()
    with pytest.raises(TunError, match="mem0 is closed"):
        tun.read()
    with pytest.raises(TunError):
        tun.inject(b"x")
    with pytest.raises(TunError):
        tun.write(Burst.of(b"x"))
