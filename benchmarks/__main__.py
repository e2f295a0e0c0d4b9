"""`make bench`: measure wgpy and other programs, and compare the results with the goals (as root).

Without names, everything except `endurance` is measured and docs/performance.md is written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import (
    clients,
    endurance,
    floods,
    handshakes,
    lines,
    merging,
    report,
    rootless,
    scale,
    stack,
    stages,
    starting,
    workers,
)
from benchmarks.goals import GOALS, Verdict
from benchmarks.plan import Plan, progress
from benchmarks.results import Results
from benchmarks.traffic import TRAFFIC, Traffic
from benchmarks.tunnels import PROGRAMS

OTHERS: Final[dict[str, Callable[[Plan], None]]] = {
    "handshakes": handshakes.measure,
    "floods": floods.measure,
    "merging": merging.measure,
    "workers": workers.measure,
    "clients": clients.measure,
    "rootless": rootless.measure,
    "stack": stack.measure,
    "lines": lines.measure,
    "peers": scale.peers,
    "by_peers": scale.by_peers,
    "allowed_ips": scale.allowed_ips,
    "starting": starting.starting,
    "idle": starting.idle,
    "stages": stages.measure,
    "endurance": endurance.measure,
}
TOOLS: Final = ("ip", "ss", "ping", "iperf3", "wg")


def main() -> int:
    arguments = _parser().parse_args()
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")  # for the results alone; daemons also write to standard output
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if arguments.read:
        results = Results.from_json(json.loads(arguments.read.read_text()))
    else:
        if missing := _missing():
            progress(f"benchmarks: needs {missing}")
            return 2
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces and daemons are removed
        results = measure(arguments)
    tables = f"\n{report.figures(results)}\n{report.summary(results)}"
    print(json.dumps(results.to_json(), indent=1) if arguments.json else tables, file=output, flush=True)
    if arguments.json:
        progress(tables)
    if arguments.write or (not arguments.names and not arguments.read and not arguments.quick):
        report.write(results)
        progress(f"\nwrote {report.DOCUMENT}")
    if arguments.check and any(goal.verdict(results) is Verdict.MISSED for goal in GOALS):
        return 3
    return 1 if results.failures else 0


def measure(arguments: argparse.Namespace) -> Results:
    """Measure what the arguments ask for, in one run."""
    plan = Plan.quick() if arguments.quick else Plan()
    plan.only = frozenset(arguments.programs)
    plan.rounds = arguments.rounds or plan.rounds
    plan.minutes = arguments.minutes
    names = arguments.names or {*TRAFFIC, *OTHERS} - {"endurance"}
    began = time.monotonic()
    plan.results.about = about(plan)
    progress(report.about(plan.results))
    if traffic := frozenset(names) & frozenset(TRAFFIC):
        progress("Through tunnels:")
        Traffic(plan, traffic).measure()
    for name, function in OTHERS.items():
        if name in names:
            progress(f"{(function.__doc__ or name).splitlines()[0]}")
            plan.attempt(name, partial(function, plan))
    minutes = (time.monotonic() - began) / 60
    plan.results.about["duration"] = f"{minutes:.0f} minutes, {plan.rounds} rounds"
    return plan.results


def about(plan: Plan) -> dict[str, str]:
    """The date, the machine and the versions."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "memory": f"{memory / 2**20:.1f} GiB",
        "kernel": f"Linux {platform.release()}",
        "Python": platform.python_version(),
        "programs": ", ".join(program.version() for program in plan.programs()),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _missing() -> str:
    if os.geteuid() != 0:
        return "root"
    return ", ".join(tool for tool in TOOLS if shutil.which(tool) is None)


def _parser() -> argparse.ArgumentParser:
    epilog = (
        "Exit status: 0 if everything was measured, 1 if something failed, 2 if nothing can be measured here, "
        "3 if --check finds that a minimum is missed."
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, epilog=epilog)
    every = (*TRAFFIC, *OTHERS)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*every, []], help=", ".join(every))
    parser.add_argument("--quick", action="store_true", help="one short round, for a quick look")
    parser.add_argument("--rounds", type=int, help="rounds in which the programs take turns (default 5)")
    parser.add_argument("--programs", nargs="+", default=[], choices=list(PROGRAMS), help="measure only these programs")
    parser.add_argument("--json", action="store_true", help="print the results as JSON on standard output")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing; read what --json printed")
    parser.add_argument("--write", action="store_true", help=f"write {report.DOCUMENT} even after a partial run")
    parser.add_argument("--check", action="store_true", help="exit with status 3 if a minimum is missed")
    parser.add_argument("--minutes", type=float, default=10, help="minutes of TCP for endurance (default 10)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
