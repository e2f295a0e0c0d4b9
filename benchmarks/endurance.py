"""TCP between wgpy and wireguard-go for minutes on end: how long did it ever stand still while keys were renewed?"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from benchmarks.tunnels import cable
from tests.support.peers import Wgpy, WireguardGo, peer_section, wait_for

INTERVAL = 0.1  # seconds between two of iperf3's counts


def measure(minutes: float, tell: Callable[[str], None]) -> dict[str, float]:
    """Mbit/s, sessions agreed on, and the longest time without a byte, in seconds."""
    seconds = int(minutes * 60)
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
        left, right = cable(cleanup)
        theirs = WireguardGo(right, peer_section(left))
        cleanup.callback(theirs.close)
        cleanup.callback(Wgpy(left, directory, peer_section(right)).close)
        server = right.namespace.popen("iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
        assert wait_for(lambda: ":5201" in right.namespace.run("ss", "-Hltn"))
        report_path = directory / "report.json"
        command = ("iperf3", "-c", right.inner4, "-t", str(seconds), "-i", str(INTERVAL), "--json")
        with report_path.open("w") as output:
            client = left.namespace.popen(*command, stdout=output)
            handshakes: set[str] = set()
            while client.poll() is None:
                handshakes.add(theirs.wg("latest-handshakes").split()[1])
                wait_for(lambda: client.poll() is not None, 5)
        server.wait(10)
        report = json.loads(report_path.read_text())
    counts = [interval["sum"]["bytes"] for interval in report["intervals"]]
    still = max((len(list(run)) for empty, run in groupby(counts, lambda count: count == 0) if empty), default=0)
    result = {
        "minutes": minutes,
        "mbit_s": report["end"]["sum_received"]["bits_per_second"] / 1e6,
        "sessions": len(handshakes - {"0"}),
        "longest_stall_s": still * INTERVAL,
    }
    tell(
        f"{seconds} s of TCP to wireguard-go: {result['mbit_s']:.0f} Mbit/s over {result['sessions']:.0f} sessions; "
        f"never more than {result['longest_stall_s']:.1f} s without a byte"
    )
    return result
