"""TCP by `open_connection` through a tunnel without root, and iperf3 through one with root, both to wireguard-go.

`python -m benchmarks.rootless ADDRESS SIZE` sends SIZE bytes to `tests.namespace.serve` as the user nobody, with the
configuration on standard input. It checks the SHA-256 that comes back, and prints the seconds that this took.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import wgpy
from benchmarks.goals import WGPY
from benchmarks.plan import Plan
from benchmarks.traffic import WITH_CUBIC
from benchmarks.tunnels import cable
from tests.namespace.serve import CHUNK
from tests.support.nobody import become_nobody
from tests.support.peers import StartedWgpy, WireguardGo, iperf3, peer_section

SIZE: Final = 250_000_000  # bytes of each transfer
PORT: Final = 8080


def measure(plan: Plan) -> None:
    """TCP without root by open_connection, and with root by iperf3."""
    if WGPY not in (program.name for program in plan.programs()):
        return
    for number in range(plan.rounds):
        plan.attempt("rootless", partial(_round, plan, number))


def _round(plan: Plan, number: int) -> None:
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
        left, right = cable(cleanup)
        far = WireguardGo(right, peer_section(left, endpoint=None))
        cleanup.callback(far.close)

        near = StartedWgpy(left, directory, peer_section(right))
        cleanup.callback(near.close)
        options = ("-n", str(SIZE), *WITH_CUBIC)
        end = iperf3(left.namespace, right.namespace, right.inner4, *options)
        rate = end["sum_received"]["bits_per_second"] / 1e6
        plan.add("rooted", WGPY, number, rate, f"iperf3 -c ADDRESS {' '.join(options)}, of `wgpy up` to wireguard-go")
        near.close()

        serve = (sys.executable, "-m", "tests.namespace.serve", right.inner4, str(PORT))
        server = right.namespace.popen(*serve, stdout=subprocess.PIPE)
        cleanup.callback(server.wait)
        cleanup.callback(server.kill)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        lines = ["[Interface]", f"PrivateKey = {left.key.base64()}", f"Address = {left.inner4}/24", peer_section(right)]
        send = (sys.executable, "-m", "benchmarks.rootless", right.inner4, str(SIZE))
        seconds = float(left.namespace.run(*send, input="\n".join(lines), timeout=300))
        plan.add(
            "rootless", WGPY, number, SIZE * 8 / seconds / 1e6, " ".join(("python", *send[1:3], "ADDRESS", send[4]))
        )


async def _send(config: wgpy.InterfaceConfig, address: str, size: int) -> float:
    async with wgpy.connect(config, network="namespace") as tunnel:
        reader, writer = await tunnel.open_connection(address, PORT)
        await tunnel.wait_for_handshake(config.peers[0].public_key)
        block, digest, left = bytes(range(256)) * (CHUNK // 256), hashlib.sha256(), size
        begin = time.perf_counter()
        writer.write(b"take %d\n" % size)
        while left > 0:
            chunk = block[:left]
            writer.write(chunk)
            digest.update(chunk)
            await writer.drain()
            left -= len(chunk)
        assert await reader.readexactly(32) == digest.digest(), "the bytes that arrived are others"
        seconds = time.perf_counter() - begin
        writer.close()
        return seconds


if __name__ == "__main__":
    configuration = wgpy.config.parse(sys.stdin.read()).config
    become_nobody()
    print(asyncio.run(_send(configuration, sys.argv[1], int(sys.argv[2]))))
