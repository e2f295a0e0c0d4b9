"""TCP through two daemons in two network namespaces: wgpy's, and Debian's wireguard-go under the same `ip` and `wg`.

Both are measured in one run, in turns, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.support.netns import Namespace, veth_pair
from tests.support.peers import Side, Wgpy, WireguardGo, iperf3, peer_section

DIRECTIONS = {"download": ("-R",), "upload": ()}


def measure(rounds: int, seconds: float, tell: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Median Mbit/s received, by implementation and direction."""
    results: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds):
        for name, implementation in (("wgpy", Wgpy), ("wireguard-go", WireguardGo)):
            with ExitStack() as cleanup:
                left, right = _bring_up(implementation, cleanup)
                for direction, options in DIRECTIONS.items():
                    end = iperf3(left.namespace, right.namespace, right.inner4, *options, "-t", f"{seconds:g}")
                    rate = end["sum_received"]["bits_per_second"] / 1e6
                    results.setdefault(name, {}).setdefault(direction, []).append(rate)
                    tell(f"round {number + 1} of {rounds}: {name:12} {direction:8} {rate:7.0f} Mbit/s")
    return {name: {way: median(rates) for way, rates in ways.items()} for name, ways in results.items()}


def cable(cleanup: ExitStack) -> tuple[Side, Side]:
    """Two namespaces that reach each other."""
    a, b = cleanup.enter_context(Namespace()), cleanup.enter_context(Namespace())
    veth_pair(a, b, (("192.0.2.1/24",), ("192.0.2.2/24",)))
    return Side(a, "192.0.2.1", "10.8.0.1", "fd08::1"), Side(b, "192.0.2.2", "10.8.0.2", "fd08::2")


def _bring_up(implementation: type[Wgpy] | type[WireguardGo], cleanup: ExitStack) -> tuple[Side, Side]:
    directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
    left, right = cable(cleanup)
    for side, other in ((left, right), (right, left)):
        peer = peer_section(other)
        daemon = Wgpy(side, directory, peer) if implementation is Wgpy else WireguardGo(side, peer)
        cleanup.callback(daemon.close)
    left.namespace.run("ping", "-c", "1", "-W", "5", right.inner4)
    return left, right
