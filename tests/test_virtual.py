"""The world in memory, in virtual time."""

from __future__ import annotations

import asyncio
import time

import pytest

from wgpy import virtual
from wgpy.burst import Datagrams
from wgpy.endpoint import Endpoint
from wgpy.errors import SocketError
from wgpy.net.memory import MemoryNetwork
from wgpy.net.udp import Received


def test_timers_fire_in_order_and_on_time_and_nobody_waits() -> None:
    fired = []

    async def at(seconds: float) -> None:
        await asyncio.sleep(seconds)
        fired.append((seconds, asyncio.get_running_loop().time() - begin))

    async def main() -> None:
        await asyncio.gather(at(3600.0), at(0.001), at(86400.0 * 30), at(60.0))

    began = time.monotonic()
    with asyncio.Runner(loop_factory=virtual.VirtualLoop) as runner:
        begin = runner.get_loop().time()
        runner.run(main())
    assert [seconds for seconds, _ in fired] == [0.001, 60.0, 3600.0, 86400.0 * 30]
    assert all(elapsed == pytest.approx(seconds, abs=1e-5) for seconds, elapsed in fired)
    assert time.monotonic() - began < 60


def test_a_port_is_taken_once_and_free_after_it_is_closed() -> None:
    host = MemoryNetwork().host("192.0.2.1")
    first = host.open(51820)
    assert host.open().port != host.open().port
    with pytest.raises(SocketError, match=r"51820 of 192\.0\.2\.1"):
        host.open(51820)
    first.close()
    assert host.open(51820).port == 51820


def test_datagrams_take_their_time_and_carry_their_mark() -> None:
    async def main() -> None:
        network = MemoryNetwork(delay=0.5)
        a, b = network.host("192.0.2.1").open(1), network.host("2001:db8::2").open(2)
        come = asyncio.Event()
        loop = asyncio.get_running_loop()

        def readable(_: object) -> bool:
            received = b.receive(b)
            assert received is not None
            seen.append(received)
            if len(seen) == 3:
                come.set()
            return True

        b.start_reading(loop, readable)
        begin = loop.time()
        a.send(Datagrams(memoryview(bytearray(b"onetwo3")), 3), Endpoint("2001:db8::2", 2), 0xB9)
        a.send(Datagrams.of(b"lost"), Endpoint("2001:db8::3", 2), 0)
        await come.wait()
        assert loop.time() - begin == pytest.approx(0.5, abs=1e-5)
        assert [bytes(received.datagrams.view) for received in seen] == [b"one", b"two", b"3"]
        assert {(received.source, received.ecn) for received in seen} == {(Endpoint("192.0.2.1", 1), 1)}

    seen: list[Received] = []
    virtual.run(main())
