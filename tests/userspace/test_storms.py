"""asyncio's streams on the stack through bad networks: every byte once and in order, or the error of a socket.

Everything is drawn from one seed, so a run that fails can be repeated, datagram for datagram.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from random import Random
from zlib import crc32

import pytest

import wgpy
from tests.userspace.pair import PORT, THERE, configs
from wgpy import virtual
from wgpy.keys import PrivateKey

STREAMS = 8
SIZES = (1, 1_000, 60_000, 400_000)
OUTCOMES = {"whole", "ETIMEDOUT", "ECONNRESET", "EPIPE", "EHOSTUNREACH"}


class Storm:
    """One seed's run: `outcomes` of its streams, and `digest` of all that was on the network."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.errors: set[str] = set()  # of the server's ends
        self.digest = 0
        self.loss = 0.0
        self.until = 0.0  # when the weather changes

    def run(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "urandom", self.random.randbytes)
            patch.setattr(PrivateKey, "generate", lambda: PrivateKey(self.random.randbytes(32)))
            virtual.run(self.main())

    def carries(self, source: wgpy.Endpoint, destination: wgpy.Endpoint, datagram: bytes) -> bool:
        now = asyncio.get_running_loop().time()
        self.digest = crc32(datagram + now.hex().encode(), self.digest)
        if now >= self.until:
            self.loss = self.random.choice((0.0, 0.01, 0.1, 0.3, 1.0))
            self.until = now + self.random.expovariate(1 / (40 if self.loss == 1.0 else 10))
        return self.random.random() >= self.loss

    async def main(self) -> None:
        network, loop = wgpy.MemoryNetwork(delay=0.02), asyncio.get_running_loop()
        network.carries = self.carries
        here, there = (
            wgpy.Stack(config, udp=network.host(f"192.0.2.{i + 1}"), clock=loop.time)
            for i, config in enumerate(configs())
        )
        async with here, there:
            await there.start_server(self.echo, port=PORT)
            async with asyncio.timeout(24 * 3600), asyncio.TaskGroup() as group:
                for _ in range(STREAMS):
                    group.create_task(self.stream(here, self.random.choice(SIZES)))
                    await asyncio.sleep(self.random.random() * 20)

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError as error:
            self.errors.add(errno.errorcode[error.errno or 0])
        finally:
            writer.close()

    async def stream(self, here: wgpy.Stack, size: int) -> None:
        data, received = self.random.randbytes(size), bytearray()
        try:
            reader, writer = await here.open_connection(THERE[0], PORT)

            async def send() -> None:
                for at in range(0, size, 20_000):
                    writer.write(data[at : at + 20_000])
                    await writer.drain()
                writer.write_eof()

            sending = asyncio.create_task(send())
            try:
                while piece := await reader.read(1 << 16):
                    received += piece
                    assert data.startswith(received[-len(piece) :], len(received) - len(piece))
                await sending
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                writer.close()
        except OSError as error:
            self.outcomes[errno.errorcode[error.errno or 0]] += 1
        else:
            assert received == data
            self.outcomes["whole"] += 1


@pytest.mark.parametrize("seed", range(6))
def test_a_stream_delivers_every_byte_once_in_order_or_fails_as_a_socket(seed: int) -> None:
    storm = Storm(seed)
    storm.run()
    assert storm.outcomes.total() == STREAMS
    assert storm.outcomes.keys() | storm.errors <= OUTCOMES
    assert storm.outcomes["whole"] > STREAMS / 2


def test_a_seed_gives_the_same_storm_each_time() -> None:
    storms = [Storm(seed) for seed in (1, 1, 2)]
    for storm in storms:
        storm.run()
    assert storms[0].digest == storms[1].digest != storms[2].digest
    assert storms[0].outcomes == storms[1].outcomes
