"""Through a tunnel: TCP in several shapes, UDP without loss, pings, and what the daemons' memory is afterwards."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final

from benchmarks.goals import GO, WGPY
from benchmarks.plan import Plan, tell
from benchmarks.results import percentile
from benchmarks.tunnels import Program, Tunnel, greet, resident, tunnel
from tests.support.peers import iperf3, wait_for

# By measure: iperf3's options, and whether it goes to the inner IPv6.
TCP: Final = {
    "tcp": ((), False),
    "tcp8": (("-P", "8"), False),
    "tcp_both": (("--bidir",), False),
    "tcp_inner6": ((), True),
}
UDP_SIZE: Final = 1300  # bytes of payload
GSO_SEGMENTS: Final = 32  # to a system call, as QUIC does
FIRST: Final = 300.0  # Mbit/s that UDP is tried at, and by which factor the next rate differs
FAR, NEAR = 1.7, 1.2  # without and with knowledge of the tunnel
PINGS: Final = {"ping_idle": ("0.2", 3), "ping_often": ("0.001", 1)}  # seconds between two, seconds in all
LOADED_INTERVAL: Final = "0.004"
SIZES: Final = (64, 256, 768, 1392)
PERCENTS: Final = (1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5)


class Traffic:
    """What to measure, and what carries over from one tunnel of a program to its next."""

    def __init__(self, plan: Plan, names: frozenset[str]) -> None:
        self.plan = plan
        self.names = names
        self.rates: dict[tuple[str, str], float] = {}  # Mbit/s of UDP without loss, found the last time
        self.pings: dict[str, dict[str, list[float]]] = {}  # all of them, in ms

    def measure(self) -> None:
        if self.names - {"sizes"}:
            for number, program in self.plan.turns(all_rounds=True):
                rival = program.name in (WGPY, GO) or number % self.plan.others_every == 0
                self.plan.attempt(program.name, partial(self._round, number, program, rival))
        if "sizes" in self.names:
            self._sizes()
        for measure, chart in (("ping_often", "latency_idle"), ("ping_load", "latency_load")):
            for name, times in self.pings.get(measure, {}).items():
                curve = [(percent, percentile(times, percent)) for percent in PERCENTS]
                self.plan.results.curves.setdefault(chart, {})[name] = curve

    def _round(self, number: int, program: Program, everything: bool) -> None:
        """All rows through one tunnel and, over IPv6, another; or the first alone, which all have a goal in."""
        if not everything and "tcp" not in self.names:
            return
        with tunnel(program) as through:
            greet(through)
            add = partial(self._add, program.name, number)
            for measure, (options, inner6) in TCP.items():
                if measure in self.names and (everything or measure == "tcp"):
                    add(measure, *self._tcp(through, options, inner6))
            if everything and "memory" in self.names and (pids := through.pids()):
                add("memory", max(map(resident, pids)) / 1024, "grep VmRSS /proc/PID/status, the larger of both ends")
            if everything:
                self._datagrams(through, add)
                self._pings(through, add)
        if everything and "tcp_outer6" in self.names:
            with tunnel(program, 6) as through:
                greet(through)
                add("tcp_outer6", *self._tcp(through, (), False))

    def _add(self, program: str, number: int, measure: str, value: float, command: str) -> None:
        self.plan.add(measure, program, number, value, command)

    def _tcp(self, through: Tunnel, options: tuple[str, ...], inner6: bool) -> tuple[float, str]:
        address = through.right.inner6 if inner6 else through.right.inner4
        return tcp(through, self.plan.seconds, address, *options)

    def _datagrams(self, through: Tunnel, add: Callable[[str, float, str], None]) -> None:
        for measure, segments in (("udp", 1), ("udp_gso", GSO_SEGMENTS)):
            if measure in self.names:
                add(measure, *self._lossless(through, measure, UDP_SIZE, segments))

    def _pings(self, through: Tunnel, add: Callable[[str, float, str], None]) -> None:
        rows: dict[str, tuple[str, float, AbstractContextManager[None]]]
        rows = {name: (*how, nullcontext()) for name, how in PINGS.items()}
        seconds = self.plan.seconds
        rows["ping_load"] = (LOADED_INTERVAL, seconds, _Load(through, seconds + 2))
        for measure, (interval, length, meanwhile) in rows.items():
            if measure in self.names:
                with meanwhile:
                    times, command = ping(through, interval, length)
                name = through.program.name
                self.pings.setdefault(measure, {}).setdefault(name, []).extend(times)
                add(measure, percentile(times, 50), command)

    def _lossless(self, through: Tunnel, what: str, size: int, segments: int) -> tuple[float, str]:
        key = (through.program.name, what)
        guess, step = (self.rates[key], NEAR) if key in self.rates else (FIRST * size / UDP_SIZE, FAR)
        rate, command = datagrams(through, size, segments, self.plan.trial_seconds, guess, step)
        self.rates[key] = rate or guess / FAR
        return rate, command

    def _sizes(self) -> None:
        """UDP by size, one round of each program."""
        curves = self.plan.results.curves.setdefault("sizes", {})
        for program in self.plan.charted():

            def measure(program: Program = program) -> None:
                with tunnel(program) as through:
                    greet(through)
                    for size in SIZES:
                        rate, _ = self._lossless(through, f"size {size}", size, 1)
                        tell(f"  {program.name:22} UDP of {size:5,} bytes {rate:10,.1f} Mbit/s")
                        curves.setdefault(program.name, []).append((size, rate))

            self.plan.attempt(f"{program.name} by size", measure)


class _Load(AbstractContextManager[None]):
    """TCP through the tunnel meanwhile."""

    def __init__(self, through: Tunnel, seconds: float) -> None:
        self._tunnel, self._seconds = through, seconds

    def __enter__(self) -> None:
        left, right = self._tunnel.left, self._tunnel.right
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._server = right.namespace.popen("iperf3", "-s", "-1", "-B", right.inner4, **quiet)
        assert wait_for(lambda: ":5201" in right.namespace.run("ss", "-Hltn")), "iperf3 does not listen"
        self._client = left.namespace.popen("iperf3", "-c", right.inner4, "-t", str(self._seconds), **quiet)
        time.sleep(1)  # for TCP to find its rate

    def __exit__(self, *exc_info: object) -> None:
        self._client.wait(60)
        self._server.wait(60)


def tcp(through: Tunnel, seconds: float, address: str, *options: str) -> tuple[float, str]:
    """Mbit/s received, of both directions together if there are two, and the command."""
    end = iperf3(through.left.namespace, through.right.namespace, address, *options, seconds=seconds)
    received = sum(end[part]["bits_per_second"] for part in end if part.startswith("sum_received"))
    return received / 1e6, " ".join(("iperf3 -c", address, *options))


def datagrams(through: Tunnel, size: int, segments: int, seconds: float, rate: float, step: float) -> tuple[float, str]:
    """Mbit/s of UDP without loss, searched from `rate` on, and the command."""
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
