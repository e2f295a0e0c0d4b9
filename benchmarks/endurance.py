"""TCP between wgpy and wireguard-go for many minutes: the longest time without a byte while keys are renewed."""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from benchmarks.plan import Plan, progress
from benchmarks.traffic import WITH_CUBIC
from benchmarks.tunnels import cable
from tests.support.peers import StartedWgpy, WireguardGo, peer_section, wait_for

INTERVAL = 0.1  # seconds between two counts of iperf3


def measure(plan: Plan) -> None:
    """TCP for many minutes, while keys are renewed."""
    seconds = int(plan.minutes * 60)
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-bench-")))
        left, right = cable(cleanup)
        theirs = WireguardGo(right, peer_section(left))
        cleanup.callback(theirs.close)
        cleanup.callback(StartedWgpy(left, directory, peer_section(right)).close)
        server = right.namespace.popen("iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
        assert wait_for(lambda: ":5201" in right.namespace.run("ss", "-Hltn"))
        report_path = directory / "report.json"
        command = ("iperf3", "-c", right.inner4, "-t", str(seconds), "-i", str(INTERVAL), *WITH_CUBIC, "--json")
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
    plan.results.about["endurance"] = finding = (
        f"{seconds} s of TCP to wireguard-go at {report['end']['sum_received']['bits_per_second'] / 1e6:.0f} Mbit/s, "
        f"over {len(handshakes - {'0'})} sessions, never more than {still * INTERVAL:.1f} s without a byte"
    )
    progress(f"  {finding}")
