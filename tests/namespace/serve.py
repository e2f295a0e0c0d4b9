"""A server for tests: python -m tests.namespace.serve ADDRESS PORT.

A line "send N" is answered by N bytes and their SHA-256, "take N" and N bytes by their SHA-256. UDP is echoed.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import resource
import sys
from typing import cast

CHUNK = 1 << 18


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    word, count = (await reader.readline()).split()
    digest = hashlib.sha256()
    left = int(count)
    block = random.randbytes(CHUNK)
    while left > 0:
        chunk = block[:left] if word == b"send" else await reader.read(min(CHUNK, left))
        if word == b"send":
            writer.write(chunk)
            await writer.drain()
        if not chunk:
            break
        digest.update(chunk)
        left -= len(chunk)
    writer.write(digest.digest())
    await writer.drain()
    writer.close()


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


async def main(address: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Echo, local_addr=(address, port))
    server = await asyncio.start_server(serve, address, port, backlog=2048)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
