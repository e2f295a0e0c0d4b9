"""wgpy's own TCP/IP stack beside gVisor's: the same client with either, through one wireguard-go to an HTTP server.

The clients are `benchmarks/stack_client.py` and, with wireguard-go and gVisor's stack in it, `benchmarks/gvisor`.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import wgpy
from benchmarks.goals import GVISOR, WGPY
from benchmarks.plan import Plan
from benchmarks.tunnels import cable
from tests.support.peers import CurrentWireguardGo, Side, peer_section

CLIENT: Final = Path.home() / "go/bin/wgpy-benchmarks-gvisor"
PORT: Final = 8080


class Part(NamedTuple):
    """What a client is asked to measure."""

    what: str
    amount: int  # bytes, requests or connections
    scale: float  # from bytes a second or kilobytes, which it prints, to the unit of the measure


PARTS: Final = {
    "stack_download": Part("download", 200_000_000, 8e-6),
    "stack_upload": Part("upload", 150_000_000, 8e-6),
    "stack_downloads": Part("downloads", 200_000_000, 8e-6),
    "stack_requests": Part("requests", 4_000, 1),
    "stack_requests16": Part("requests16", 16_000, 1),
    "stack_connections": Part("connections", 3_200, 1),
    "stack_memory": Part("start", 0, 1e-3),
    "stack_idle": Part("idle", 500, 1),
}


def measure(plan: Plan) -> None:
    """wgpy's own TCP/IP stack beside gVisor's."""
    for program in (CLIENT, Path(CurrentWireguardGo.command[0])):
        if not program.exists():
            plan.leave_out("stack", f"no {program.name} is installed")
            return
    for number in range(plan.rounds):
        plan.attempt("stack", partial(_round, plan, number))


def _round(plan: Plan, number: int) -> None:
    with ExitStack() as cleanup:
        left, right = cable(cleanup)
        far = CurrentWireguardGo(right, peer_section(left, endpoint=None))
        cleanup.callback(far.close)
        server = right.namespace.popen(str(CLIENT), "serve", right.inner4, str(PORT), stdout=subprocess.PIPE)
        cleanup.callback(server.wait)
        cleanup.callback(server.kill)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        clients = {
            WGPY: ((sys.executable, "-m", "benchmarks.stack_client"), _wg_quick(left, right)),
            GVISOR: ((str(CLIENT),), _uapi(left, right)),
        }
        for key, (what, amount, scale) in PARTS.items():
            for name, (program, configuration) in [*clients.items()][:: -1 if number % 2 else 1]:
                command = (*program, what, right.inner4, str(PORT), str(amount))
                value = float(left.namespace.run(*command, input=configuration, timeout=120)) * scale
                told = f"python -m benchmarks.stack_client {what} ADDRESS {PORT} {amount}"
                plan.add(key, name, number, value, told)


def _wg_quick(own: Side, other: Side) -> str:
    lines = ["[Interface]", f"PrivateKey = {own.key.base64()}", f"Address = {own.inner4}/24", peer_section(other)]
    return "\n".join(lines)


def _uapi(own: Side, other: Side) -> str:
    (peer,) = wgpy.config.parse(_wg_quick(own, other)).config.peers
    lines = [own.inner4, f"private_key={own.key.hex()}", f"public_key={peer.public_key.hex()}"]
    lines += [f"endpoint={peer.endpoint}", *(f"allowed_ip={network}" for network in peer.allowed_ips)]
    if peer.preshared_key:
        lines.append(f"preshared_key={peer.preshared_key.hex()}")
    return "\n".join(lines) + "\n"
