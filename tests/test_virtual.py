"""The world in memory, in virtual time."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy import virtual
from wgpy.burst import Datagrams
from wgpy.config.values import EndpointName, InterfaceConfig, PeerConfig
from wgpy.endpoint import Endpoint
from wgpy.errors import SocketError
from wgpy.keys import PrivateKey
from wgpy.net.datagrams import Received
from wgpy.net.memory import MemoryNetwork
from wgpy.tun.memory import MemoryTun
from wgpy.tunnel import Tunnel


def test_timers_fire_in_order_and_on_time_without_waiting() -> None:
    fired = []

    async def at(seconds: float) -> None:
        await asyncio.sleep(seconds)
        fired.append((seconds, asyncio.get_running_loop().time() - begin))

    async def main() -> None:
        await asyncio.gather(at(3600.0), at(0.001), at(86400.0 * 30), at(60.0))

    with asyncio.Runner(loop_factory=virtual.VirtualLoop) as runner:  # whoever waits here waits for a month
        begin = runner.get_loop().time()
        runner.run(main())
    assert [seconds for seconds, _ in fired] == [0.001, 60.0, 3600.0, 86400.0 * 30]
    assert all(elapsed == pytest.approx(seconds, abs=1e-5) for seconds, elapsed in fired)


def test_a_port_can_be_bound_once_and_again_after_it_is_closed() -> None:
    host = MemoryNetwork().host("192.0.2.1")
    first = host.open(51820)
    assert host.open().port != host.open().port
    with pytest.raises(SocketError, match=r"51820 of 192\.0\.2\.1"):
        host.open(51820)
    first.close()
    assert host.open(51820).port == 51820


def test_datagrams_have_a_delay_and_keep_their_traffic_class() -> None:
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


# Where a float tells nanoseconds, where it has lost them, at zero, and before it.
CLOCKS = st.sampled_from([0.0, -1.0, 1.0, 1e6, 2.0**23 - 1e-9, 1e9, 1.7e9, 1e12]) | st.floats(-1e12, 1e12)
DELAYS = st.sampled_from([0, 0.0, -1.0, 1e-12, 1e-9, 1e-7, 0.01, 25.0, 86400.0 * 400]) | st.floats(-10, 1e6)


@st.composite
def timers(draw: st.DrawFn) -> list[tuple[float, bool, list[float]]]:
    """Delays, whether the timer is cancelled at once, and the delays of those it starts when it fires."""
    timer = st.tuples(DELAYS, st.booleans(), st.lists(DELAYS, max_size=3))
    return draw(st.lists(timer, min_size=1, max_size=30))


@given(clock=CLOCKS, timers=timers())
def test_every_timer_fires_once_in_order_and_no_earlier_than_it_is_due(
    clock: float, timers: list[tuple[float, bool, list[float]]]
) -> None:
    fired: list[tuple[float, float]] = []  # when it was due, never before it was started, and when it fired

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left = sum(1 + len(nested) for _, cancelled, nested in timers if not cancelled)
        done = loop.create_future()

        def fire(due: float, nested: list[float]) -> None:
            nonlocal left
            fired.append((due, loop.time()))
            left -= 1
            for delay in nested:
                start(delay, [])
            if not left:
                done.set_result(None)

        def start(delay: float, nested: list[float]) -> asyncio.TimerHandle:
            return loop.call_later(delay, fire, max(loop.time(), loop.time() + delay), nested)

        for delay, cancelled, nested in timers:
            handle = start(delay, nested)
            if cancelled:
                handle.cancel()
        if left:
            await done

    with asyncio.Runner(loop_factory=virtual.VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, virtual.VirtualLoop)
        loop.advance(clock - loop.time())
        runner.run(main())
    assert len(fired) == sum(1 + len(nested) for _, cancelled, nested in timers if not cancelled)
    times = [now for _, now in fired]
    assert times == sorted(times)
    assert all(due <= now <= due + 2 * math.ulp(now) for due, now in fired)


def test_a_timer_that_is_due_exactly_now_fires() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        due: asyncio.Future[int] = loop.create_future()
        loop.call_later(0, due.set_result, 1)
        return await due

    assert virtual.run(main()) == 1


@pytest.mark.parametrize("pause", [1e-12, 1e-9, 0.01])
def test_time_passes_for_code_that_polls(pause: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual.VirtualLoop)
        loop.advance(1.7e9)
        begin, turns = loop.time(), 0
        while loop.time() - begin < 100 * pause and turns < 200:
            await asyncio.sleep(pause)
            turns += 1
        assert loop.time() > begin
        assert turns <= 101

    virtual.run(main())


def test_thousands_of_timers_at_one_time_take_one_turn_each() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.gather(*(asyncio.sleep(60) for _ in range(5000)))
        assert loop.time() == begin + 60

    virtual.run(main())


def test_polling_does_not_stop_a_pair_of_tunnels() -> None:
    """As docs/how-to/testing.md has it, but looked at every hundredth of a second."""

    async def main() -> None:
        network = MemoryNetwork(delay=0.02)
        a, b = PrivateKey.generate(), PrivateKey.generate()

        def tunnel(own: PrivateKey, other: PrivateKey, address: str, to: str) -> Tunnel:
            endpoint = EndpointName(host=to, port=51820)
            peer = PeerConfig(public_key=other.public_key, endpoint=endpoint, persistent_keepalive=25)
            config = InterfaceConfig(private_key=own, listen_port=51820, peers=(peer,))
            return Tunnel(config, tun=MemoryTun(), udp=network.host(address), clock=asyncio.get_running_loop().time)

        here, there = tunnel(a, b, "192.0.2.1", "192.0.2.2"), tunnel(b, a, "192.0.2.2", "192.0.2.1")
        async with here, there:
            loop = asyncio.get_running_loop()
            end, handshakes = loop.time() + 300, set[int]()
            while loop.time() < end:
                await asyncio.sleep(0.01)
                handshakes.add(here.status().peers[0].last_handshake_ns)
            assert len(handshakes - {0}) >= 2

    virtual.run(main())
