"""How often and how long to measure, and progress messages."""

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
    trial_seconds: float = 0.6  # of each trial of a UDP rate
    others_every: int = 3  # programs that are in no goal are measured in one round of so many
    minutes: float = 10  # of the endurance test
    chart_all: bool = True  # measure all programs for charts, not only wgpy and wireguard-go
    only: frozenset[str] = frozenset()  # measure only these programs; empty for all
    results: Results = field(default_factory=Results)

    @classmethod
    def quick(cls) -> Plan:
        return cls(rounds=1, seconds=1.0, trial_seconds=0.4, chart_all=False)

    def programs(self, *, daemons: bool = False) -> list[Program]:
        """The programs that can be measured here; with `daemons`, only userspace WireGuard. Notes the absent ones."""
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
        """The programs to measure when it is only for a chart."""
        programs = self.programs(daemons=daemons)
        return [program for program in programs if self.chart_all or program.name in (WGPY, GO)]

    def turns(self, *, daemons: bool = False, all_rounds: bool = False) -> Iterator[tuple[int, Program]]:
        """Each round with each of its programs, whose order alternates."""
        programs = self.programs(daemons=daemons)
        for number in range(self.rounds):
            for program in programs[:: -1 if number % 2 else 1]:
                if all_rounds or program.name in (WGPY, GO) or number % self.others_every == 0:
                    yield number, program

    def add(self, measure: str, program: str, round_: int, value: float, command: str) -> None:
        """Keep a value, and print it as progress."""
        self.results.add(measure, program, round_, value, command)
        title, unit, *_ = MEASURES.get(measure, (measure, "us"))
        progress(f"  round {round_ + 1} of {self.rounds}  {program:22} {title:48} {value:10,.2f} {unit}")

    def attempt(self, what: str, measure: Callable[[], None]) -> None:
        """Measure; note a failure and carry on."""
        try:
            measure()
        except Exception as error:
            traceback.print_exc()
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            _note(self.results.failures, f"{what}: {reason}")


def _note(where: list[str], what: str) -> None:
    if what not in where:
        where.append(what)
        progress(f"not measured: {what}")


def progress(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr, flush=True)
