"""An HTTP client on wgpy's own TCP/IP stack, without privileges: what `benchmarks/gvisor` is with gVisor's.

`python -m benchmarks.stack_client MEASURE ADDRESS PORT COUNT` takes a wg-quick file on standard input and prints bytes,
requests or connections per second, or kilobytes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import wgpy
from tests.support.nobody import become_nobody
from wgpy.system.loop import run_loop

CHUNK: Final = 1 << 18  # bytes
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Stream]]


async def run(config: wgpy.InterfaceConfig, what: str, address: str, port: int, count: int) -> int:
    """Measure, and print."""
    async with wgpy.connect(config, network="stack") as tunnel:

        async def dial() -> Stream:
            return await tunnel.open_connection(address, port, limit=CHUNK)

        await get(await dial(), 0)  # the handshake
        if what == "start":
            print(resident())
        elif what == "idle":
            before = resident()
            streams = [await dial() for _ in range(count)]
            print((resident() - before) / count)
            for _, writer in streams:
                writer.close()
        else:
            begin = time.perf_counter()
            await LOADS[what](dial, count)
            print(count / (time.perf_counter() - begin))
    return 0


async def download(dial: Dial, size: int) -> None:
    await get(await dial(), size)


async def downloads(dial: Dial, size: int) -> None:
    await asyncio.gather(*(download(dial, size // 50) for _ in range(50)))


async def upload(dial: Dial, size: int) -> None:
    reader, writer = await dial()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    block = bytes(CHUNK)
    for left in range(size, 0, -CHUNK):
        writer.write(block[:left])
        await writer.drain()
    await expect(reader, 0)


async def requests(dial: Dial, count: int) -> None:
    stream = await dial()
    for _ in range(count):
        await get(stream, 0)


async def requests16(dial: Dial, count: int) -> None:
    await asyncio.gather(*(requests(dial, count // 16) for _ in range(16)))


async def connections(dial: Dial, count: int) -> None:
    """Each with one request, 16 at once."""

    async def some() -> None:
        for _ in range(count // 16):
            stream = await dial()
            await get(stream, 0)
            stream[1].close()

    await asyncio.gather(*(some() for _ in range(16)))


async def get(stream: Stream, size: int) -> None:
    """Send one request, and read its answer, all of it."""
    reader, writer = stream
    writer.write(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % size)
    await expect(reader, size)


async def expect(reader: asyncio.StreamReader, size: int) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % size in head, head
    while size:
        data = await reader.read(CHUNK)
        assert data, "the connection ended early"
        size -= len(data)


def resident() -> int:
    """This process's memory in kB, to which what only the benchmarks need would add: so it imports little."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmRSS:"))


LOADS: Final = {load.__name__: load for load in (download, downloads, upload, requests, requests16, connections)}

if __name__ == "__main__":
    configuration = wgpy.config.parse(sys.stdin.read()).config
    become_nobody()
    _, what, address, port, count = sys.argv
    sys.exit(run_loop(lambda: run(configuration, what, address, int(port), int(count))))
