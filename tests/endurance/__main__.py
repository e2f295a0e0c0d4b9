"""`make endurance`: TCP both ways while keys are renewed every two seconds; memory and files must stay as they are.

python -m tests.endurance [--minutes N], as root
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.endings import heed_signals
from tests.support.netns import Namespace, veth_pair
from tests.support.peers import Side, Wgpy, peer_section, wait_for
from wgpy.daemon.uapi_client import serving_pid

WARMING_UP: Final = 0.25  # of the time, at most a minute: buffers, caches and the allocator's pools fill
GROWTH: Final = 1024  # KiB that a daemon may grow afterwards; a session that stays is about four
PATIENCE: Final = 60  # seconds for what is over at once on an idle machine


class HastyWgpy(Wgpy):
    """A daemon whose sessions last for seconds."""

    program = (sys.executable, "-m", "tests.endurance.hasty")


@dataclass(frozen=True)
class Sample:
    """Of both daemons: resident memory in KiB and open files; and the sessions so far."""

    at: float  # seconds since the start
    resident: tuple[int, ...]
    files: tuple[int, ...]
    sessions: int

    def __str__(self) -> str:
        resident, files = (" and ".join(map(str, values)) for values in (self.resident, self.files))
        return f"{self.at / 60:6.1f} min: {resident} KiB resident, {files} files, {self.sessions} sessions"


def endure(minutes: float, tell: Callable[[Sample], None], every: float = 15.0) -> list[Sample]:
    """Samples every so many seconds, from the end of warming up on. Fails if TCP or a daemon does not live through."""
    seconds = max(1, round(minutes * 60))
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="wgpy-endurance-")))
        namespaces = cleanup.enter_context(Namespace()), cleanup.enter_context(Namespace())
        veth_pair(*namespaces, (("192.0.2.1/24",), ("192.0.2.2/24",)))
        left = Side(namespaces[0], "192.0.2.1", "10.8.0.1", "fd08::1")
        right = Side(namespaces[1], "192.0.2.2", "10.8.0.2", "fd08::2")
        daemons = [HastyWgpy(*ends) for ends in (
            (left, directory, peer_section(right)), (right, directory, peer_section(left)))]  # fmt: skip
        for daemon in daemons:
            cleanup.callback(daemon.close)
        left.namespace.run("ping", "-c", "1", "-w", str(PATIENCE // 3), right.inner4)

        right.namespace.popen("iperf3", "-s", "-1", "-B", right.inner4, stdout=subprocess.DEVNULL)
        assert wait_for(lambda: ":5201" in right.namespace.run("ss", "-Hltn"), PATIENCE)
        command = ("iperf3", "-c", right.inner4, "-t", str(seconds), "--bidir", "--json", "-i", "0")
        with (directory / "report.json").open("w") as report:
            client = left.namespace.popen(*command, stdout=report)

        pids = [serving_pid(side.name) for side in (left, right)]
        begun = time.monotonic()
        handshakes: set[str] = set()

        def sample() -> Sample:
            resident, files = tuple(map(resident_kib, pids)), tuple(map(open_files, pids))
            return Sample(time.monotonic() - begun, resident, files, len(handshakes))

        samples: list[Sample] = []
        while client.poll() is None:
            handshakes.add(left.namespace.run("wg", "show", left.name, "latest-handshakes").split()[1])
            time.sleep(0.5)  # and the daemon has closed what `wg` had opened
            late = time.monotonic() - begun - min(60.0, seconds * WARMING_UP)
            if late >= len(samples) * every:
                samples.append(sample())
                tell(samples[-1])
            assert late < seconds + PATIENCE, "iperf3 does not come to its end"
        samples.append(sample())
        tell(samples[-1])
        said = json.loads((directory / "report.json").read_text())
        assert client.returncode == 0, said.get("error")
        for way in ("sum_received", "sum_received_bidir_reverse"):
            assert said["end"][way]["bytes"] > 0, "TCP went in one direction only"
    for daemon in daemons:
        assert "Traceback" not in daemon.said
    return samples


def verdict(samples: list[Sample]) -> list[str]:
    """What did not stay as it was."""
    first, last = samples[0], samples[-1]
    complaints = []
    for number, (before, after) in enumerate(zip(first.resident, last.resident, strict=True)):
        if after - before > GROWTH:
            complaints.append(f"daemon {number} has grown from {before} to {after} KiB")
    for number, (before, after) in enumerate(zip(first.files, last.files, strict=True)):
        if before != after:
            complaints.append(f"daemon {number} had {before} open files and has {after}")
    if last.sessions <= first.sessions:
        complaints.append("the session was not renewed")
    return complaints


def resident_kib(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--minutes", type=float, default=15.0, help="how long to go on (15)")
    samples = endure(parser.parse_args().minutes, lambda sample: print(sample, flush=True))
    complaints = verdict(samples)
    print("\n".join(complaints) or "flat")
    return bool(complaints)


if __name__ == "__main__":
    heed_signals()
    sys.exit(main())
