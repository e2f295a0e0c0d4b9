"""How often and how long to measure, and where progress is told."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.goals import GO, MEASURES, WGPY
from benchmarks.results import Results
from benchmarks.tunnels import PROGRAMS, Program


@dataclass
class Plan:
    """One run of the benchmarks."""

    rounds: int = 5
    seconds: float = 2.0  # of each transfer
    trial_seconds: float = 0.6  # of each rate that UDP is tried at
    others_every: int = 3  # in how many rounds programs take part that wgpy is not in a goal with
    minutes: float = 10  # of endurance
    chart_all: bool = True  # in charts, besides wgpy and wireguard-go
    only: frozenset[str] = frozenset()  # programs; empty for all
    results: Results = field(default_factory=Results)

    @classmethod
    def quick(cls) -> Plan:
        return cls(rounds=1, seconds=1.0, trial_seconds=0.4, chart_all=False)

    def programs(self, *, daemons: bool = False) -> list[Program]:
        """Those that can be measured here, if `daemons` only WireGuard in userspace; the rest is noted."""
        found = []
        for program in PROGRAMS.values():
            if (self.only and program.name not in self.only) or (daemons and not program.is_wireguard_daemon):
                continue
            if reason := program.missing():
                self.leave_out(program.name, reason)
            else:
                found.append(program)
        return found

    def leave_out(self, what: str, reason: str) -> None:
        """Note what cannot be measured here."""
        _note(self.results.absent, f"{what}: {reason}")

    def charted(self, *, daemons: bool = False) -> list[Program]:
        """Those to measure for a chart alone."""
        programs = self.programs(daemons=daemons)
        return [program for program in programs if self.chart_all or program.name in (WGPY, GO)]

    def turns(self, *, daemons: bool = False, all_rounds: bool = False) -> Iterator[tuple[int, Program]]:
        """Rounds, and the programs of each, in an order that alternates."""
        programs = self.programs(daemons=daemons)
        for number in range(self.rounds):
            for program in programs[:: -1 if number % 2 else 1]:
                if all_rounds or program.name in (WGPY, GO) or number % self.others_every == 0:
                    yield number, program

    def add(self, measure: str, program: str, round_: int, value: float, command: str) -> None:
        """Keep a value, and tell it."""
        self.results.add(measure, program, round_, value, command)
        title, unit, *_ = MEASURES.get(measure, (measure, "us"))
        tell(f"  round {round_ + 1} of {self.rounds}  {program:22} {title:48} {value:10,.2f} {unit}")

    def attempt(self, what: str, measure: Callable[[], None]) -> None:
        """Measure; a failure is noted, and the run goes on."""
        try:
            measure()
        except Exception as error:
            traceback.print_exc()
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            _note(self.results.failures, f"{what}: {reason}")


def _note(where: list[str], what: str) -> None:
    if what not in where:
        where.append(what)
        tell(f"not measured: {what}")


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
