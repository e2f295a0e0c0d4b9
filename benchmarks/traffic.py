"""Traffic through a tunnel: TCP in several forms, UDP without loss, pings, and the daemons' memory afterwards."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

from benchmarks.goals import GO, WGPY
from benchmarks.plan import Plan, progress
from benchmarks.results import percentile
from benchmarks.tunnels import Program, Tunnel, resident, tunnel, wait_until_up
from tests.support.peers import iperf3, wait_for

Row = Callable[[], tuple[float, str]]  # a value, and the command that made it

WITH_CUBIC: Final = ("-C", "cubic")  # of iperf3: it is Linux's default, but some machines have BBR instead
# By measure: iperf3's options, and whether it uses the inner IPv6.
TCP: Final = {
    "tcp": ((), False),
    "tcp8": (("-P", "8"), False),
    "tcp50": (("-P", "50"), False),
    "tcp_both": (("--bidir",), False),
    "tcp_inner6": ((), True),
}
TCP_OUTER6: Final = "tcp_outer6"
UDP: Final = {"udp": 1, "udp_gso": 32}  # datagrams per system call: one, and as many as QUIC sends
UDP_SIZE: Final = 1300  # bytes of payload
FIRST: Final = 300.0  # Mbit/s: the first rate of UDP to try
FAR, NEAR = 1.7, 1.2  # the factor to the next rate, before and after a rate of the program is known
PINGS: Final = {"ping_idle": ("0.2", 2), "ping_often": ("0.001", 1)}  # seconds between two pings, seconds in total
LOADED_PINGS: Final = ("ping_load", "0.004")
SIZES: Final = (64, 256, 768, 1392)  # bytes of UDP payload
PERCENTS: Final = (1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5)
TRAFFIC: Final = (*TCP, "memory", *UDP, *PINGS, LOADED_PINGS[0], TCP_OUTER6, "sizes")


class Traffic:
    """What to measure, and what is known from a program's earlier tunnels."""

    def __init__(self, plan: Plan, names: frozenset[str]) -> None:
        self.plan = plan
        self.names = names
        self._rates: dict[tuple[str, str], float] = {}  # Mbit/s of UDP without loss, found in the last round
        self._pings: dict[str, dict[str, list[float]]] = {}  # all of them, in ms

    def measure(self) -> None:
        for number, program in self.plan.turns(all_rounds=True):
            all_rows = program.name in (WGPY, GO) or number % self.plan.others_every == 0
            names = self.names - {"sizes"} if all_rows else self.names & {"tcp"}  # in which every program has a goal
            self.plan.attempt(program.name, partial(self._round, number, program, names))
        if "sizes" in self.names:
            for program in self.plan.charted():
                self.plan.attempt(f"{program.name} by size", partial(self._sizes, program))
        for measure, chart in (("ping_often", "latency_idle"), (LOADED_PINGS[0], "latency_load")):
            for name, times in self._pings.get(measure, {}).items():
                curve = [(percent, percentile(times, percent)) for percent in PERCENTS]
                self.plan.results.curves.setdefault(chart, {})[name] = curve

    def _round(self, number: int, program: Program, names: frozenset[str]) -> None:
        """Measure all rows through one tunnel, and one through a second tunnel over IPv6."""
        if inside := names - {TCP_OUTER6}:
            with tunnel(program) as through:
                wait_until_up(through)
                for measure, row in self._rows(through).items():
                    if measure in inside:
                        self.plan.add(measure, program.name, number, *row())
        if TCP_OUTER6 in names:
            with tunnel(program, 6) as through:
                wait_until_up(through)
                self.plan.add(TCP_OUTER6, program.name, number, *tcp(through, self.plan.seconds))

    def _rows(self, through: Tunnel) -> dict[str, Row]:
        rows: dict[str, Row] = {
            measure: partial(tcp, through, self.plan.seconds, *options, inner6=inner6)
            for measure, (options, inner6) in TCP.items()
        }
        if through.pids():
            rows["memory"] = partial(_memory, through)
        for measure, segments in UDP.items():
            rows[measure] = partial(self._lossless, through, measure, UDP_SIZE, segments)
        for measure, (interval, seconds) in PINGS.items():
            rows[measure] = partial(self._ping, through, measure, interval, seconds)
        rows[LOADED_PINGS[0]] = partial(self._ping_under_load, through)
        return rows

    def _lossless(self, through: Tunnel, what: str, size: int, segments: int) -> tuple[float, str]:
        key = (through.program.name, what)
        guess, step = (self._rates[key], NEAR) if key in self._rates else (FIRST * size / UDP_SIZE, FAR)
        rate, command = datagrams(through, size, segments, self.plan.trial_seconds, guess, step)
        self._rates[key] = rate or guess / FAR
        return rate, command

    def _ping(self, through: Tunnel, measure: str, interval: str, seconds: float) -> tuple[float, str]:
        times, command = ping(through, interval, seconds)
        self._pings.setdefault(measure, {}).setdefault(through.program.name, []).extend(times)
        return percentile(times, 50), command

    def _ping_under_load(self, through: Tunnel) -> tuple[float, str]:
        with _Load(through, self.plan.seconds + 2):
            return self._ping(through, *LOADED_PINGS, self.plan.seconds)

    def _sizes(self, program: Program) -> None:
        """UDP by size of the datagrams, in one round."""
        with tunnel(program) as through:
            wait_until_up(through)
            for size in SIZES:
                rate, _ = self._lossless(through, f"size {size}", size, 1)
                progress(f"  {program.name:22} UDP of {size:5,} bytes {rate:10,.1f} Mbit/s")
                self.plan.results.curves.setdefault("sizes", {}).setdefault(program.name, []).append((size, rate))


class _Load(AbstractContextManager[None]):
    """TCP through the tunnel while something else is measured."""

    def __init__(self, through: Tunnel, seconds: float) -> None:
        self._tunnel, self._seconds = through, seconds

    def __enter__(self) -> None:
        left, right = self._tunnel.left, self._tunnel.right
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._server = right.namespace.popen("iperf3", "-s", "-1", "-B", right.inner4, **quiet)
        assert wait_for(lambda: ":5201" in right.namespace.run("ss", "-Hltn")), "iperf3 does not listen"
        self._client = left.namespace.popen(
            "iperf3", "-c", right.inner4, "-t", str(self._seconds), *WITH_CUBIC, **quiet
        )
        time.sleep(1)  # for TCP to find its rate

    def __exit__(self, *exc_info: object) -> None:
        self._client.wait(60)
        self._server.wait(60)


def tcp(through: Tunnel, seconds: float, *options: str, inner6: bool = False) -> tuple[float, str]:
    """Mbit/s received, in all directions together, and the command."""
    address = through.right.inner6 if inner6 else through.right.inner4
    options = ("-t", f"{seconds:.0f}", *WITH_CUBIC, *options)
    end = iperf3(through.left.namespace, through.right.namespace, address, *options)
    received = sum(end[part]["bits_per_second"] for part in end if part.startswith("sum_received"))
    return received / 1e6, " ".join(("iperf3", "-c", address, *options))


def _memory(through: Tunnel) -> tuple[float, str]:
    """Resident MiB of the larger end after TCP, and the command."""
    _, command = tcp(through, 1)
    return max(map(resident, through.pids())) / 1024, f"{command}; grep VmRSS /proc/PID/status"


def datagrams(through: Tunnel, size: int, segments: int, seconds: float, rate: float, step: float) -> tuple[float, str]:
    """Mbit/s of UDP without loss, searched from `rate` on; and the command."""
    program = ("-m", "benchmarks.datagrams")
    address = through.right.inner4
    receiver = through.right.namespace.popen(sys.executable, *program, "receive", address, stdout=subprocess.PIPE)
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "ready\n"
    command = (*program, "send", address, *map(str, (size, segments, seconds, round(rate), step)))
    found = through.left.namespace.run(sys.executable, *command, timeout=120)
    receiver.terminate()
    receiver.communicate(timeout=10)
    return float(found), " ".join(("python", *command))


def ping(through: Tunnel, interval: str, seconds: float) -> tuple[list[float], str]:
    """Round trips in ms, and the command."""
    count = max(2, int(seconds / float(interval)))
    command = ("ping", "-i", interval, "-c", str(count), "-W", "2", through.right.inner4)
    said = through.left.namespace.run(*command, check=False, timeout=60)
    times = [float(time) for time in re.findall(r"time=([0-9.]+) ms", said)]
    assert times, f"no ping came back:\n{said}"
    return times, " ".join(command)
