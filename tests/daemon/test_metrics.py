"""The HTTP server of --metrics: the limits of its connections, and its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from wgpy.daemon import metrics
from wgpy.daemon.metrics import Metrics
from wgpy.device.status import DeviceStatus
from wgpy.errors import ControlError

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def run(main: Callable[[int, Metrics], Awaitable[None]], *, drops: int = 1) -> None:
    async def served() -> None:
        status = DeviceStatus(drops={f"reason {number}": 7 for number in range(drops)})

        async def read() -> DeviceStatus:
            return status

        serving = Metrics("wg0", "127.0.0.1:0", read)
        await serving.start()
        assert serving._server is not None
        try:
            await main(serving._server.sockets[0].getsockname()[1], serving)
        finally:
            serving.close()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)
            await asyncio.sleep(0)

    asyncio.run(served())


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


def test_only_get_and_head_are_answered() -> None:
    async def main(port: int, _: Metrics) -> None:
        head, _blank, text = (await ask(port, GET)).partition(b"\r\n\r\n")
        assert b'wireguard_dropped_packets_total{friendly_name="",interface="wg0"' in text
        assert b"Content-Length: %d\r\n" % len(text) in head + b"\r\n"
        assert (await ask(port, GET.replace(b"GET", b"HEAD"))).endswith(b"\r\n\r\n")
        assert (await ask(port, GET.replace(b"GET", b"POST"))).startswith(b"HTTP/1.1 405 ")
        for rubbish in (b"rubbish\r\n\r\n", b"x" * 100_000):
            with suppress(ConnectionResetError):
                assert await ask(port, rubbish) == b""

    run(main)


def test_idle_connections_and_half_requests_make_room() -> None:
    async def main(port: int, serving: Metrics) -> None:
        idle = []
        for number in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET[: number % 30])
            idle.append(writer)
        assert b" 200 " in await ask(port, GET)
        assert serving._admission.used <= metrics.MAX_CONNECTIONS
        for writer in idle:
            writer.close()

    run(main)


@pytest.mark.parametrize("request_", [b"", GET[:20], GET])
def test_every_connection_has_a_time_limit_even_one_that_does_not_read(
    request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "TIMEOUT", 0.3)

    async def main(port: int, serving: Metrics) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
        writer.write(request_)
        while not serving._admission.used:  # noqa: ASYNC110 (so does its beginning)
            await asyncio.sleep(0.01)
        while serving._admission.used:  # noqa: ASYNC110 (it ends by the server's clock)
            await asyncio.sleep(0.05)
        writer.close()

    run(main, drops=100_000 if request_ == GET else 1)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("198.51.100.7:9999", "Cannot assign requested address; give an address of this host, such as 127.0.0.1"),
        ("127.0.0.1:{}", "Address already in use; choose another port, or stop the program that listens there"),
        ("no-such-name.invalid:80", ""),
    ],
)
def test_an_unusable_address_is_reported_once_with_a_remedy(address: str, said: str) -> None:
    async def main(port: int, serving: Metrics) -> None:
        where = address.format(port)
        with pytest.raises(ControlError) as raised:
            await Metrics("wg0", where, serving._status).start()
        assert str(raised.value).startswith(f"--metrics {where}: {said}")
        assert str(raised.value).count(where) == 1
        assert "None" not in str(raised.value)

    run(main)
