"""`python -m benchmarks`: what the data path costs, and how fast TCP goes beside wireguard-go (as root)."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

from benchmarks import stages


def main() -> int:
    arguments = _parser().parse_args()
    report: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    tell = (lambda line: print(line, file=sys.stderr)) if arguments.json else print
    tell(f"{report['date']}, {report['machine']}")
    if arguments.what in ("all", "import"):
        report["import_ms"] = import_milliseconds()
        tell(f"\nimport wgpy: {report['import_ms']:.0f} ms (median of 9)")
    if arguments.what in ("all", "stages"):
        tell("\nCost of each stage, microseconds per packet of 1,420 bytes:")
        report["stages_us"] = stages.measure()
        for name, cost in report["stages_us"].items():
            tell(f"  {cost:6.2f}  {name}")
    if arguments.what in ("all", "tcp"):
        if missing := _missing():
            tell(f"\nTCP is not measured: it needs {missing}")
            return 1
        from benchmarks import throughput

        tell("\nTCP through two daemons in two network namespaces:")
        rates = report["tcp_mbit_s"] = throughput.measure(arguments.rounds, arguments.seconds, tell)
        for way in throughput.DIRECTIONS:
            ratio = rates["wgpy"][way] / rates["wireguard-go"][way]
            report.setdefault("tcp_ratio", {})[way] = ratio
            ours, theirs = rates["wgpy"][way], rates["wireguard-go"][way]
            tell(f"{way:8}: wgpy {ours:.0f} Mbit/s, wireguard-go {theirs:.0f} Mbit/s: ratio {ratio:.2f}")
    if arguments.what == "endurance":
        from benchmarks import endurance

        report["endurance"] = endurance.measure(arguments.minutes, tell)
    if arguments.json:
        print(json.dumps(report, indent=2))
    return 0


def machine() -> str:
    """Processor, cores, kernel and Python."""
    with open("/proc/cpuinfo") as lines:
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    cores, kernel, python = os.cpu_count(), platform.release(), platform.python_version()
    return f"{cores} x {model}, Linux {kernel}, Python {python}"


def import_milliseconds() -> float:
    """`import wgpy` in a fresh interpreter, less the interpreter's own start."""

    def elapsed(program: str) -> float:
        rounds = []
        for _ in range(9):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            rounds.append(time.perf_counter() - begin)
        return sorted(rounds)[4] * 1e3

    return max(0.0, elapsed("import wgpy") - elapsed("pass"))


def _missing() -> str:
    if os.geteuid() != 0:
        return "root"
    return ", ".join(
        tool for tool in ("ip", "ss", "ping", "iperf3", "wg", "wireguard-go") if shutil.which(tool) is None
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "import", "stages", "tcp", "endurance"), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of TCP (default 3)")
    parser.add_argument("--seconds", type=float, default=5, help="seconds of TCP each (default 5)")
    parser.add_argument(
        "--minutes", type=float, default=10, help="of TCP for endurance, which is not in all (default 10)"
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output, progress on stderr")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
