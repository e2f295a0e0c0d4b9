"""What was measured: a value for each measure, program and round, and the command that made it.

Programs take turns within a round, and ratios are taken round by round, so that other load on the machine affects both
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Point = tuple[float, float]


@dataclass
class Results:
    """All results of a run, in the units of `goals.MEASURES`."""

    samples: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    curves: dict[str, dict[str, list[Point]]] = field(default_factory=dict)  # for charts only
    failures: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # programs that cannot be measured here, and why
    about: dict[str, str] = field(default_factory=dict)  # date, machine, versions

    def add(self, measure: str, program: str, round_: int, value: float, command: str) -> None:
        self.samples.setdefault(measure, {}).setdefault(program, {})[round_] = value
        self.commands[measure] = command

    def values(self, measure: str, program: str) -> list[float]:
        return list(self.samples.get(measure, {}).get(program, {}).values())

    def median(self, measure: str, program: str) -> float | None:
        values = self.values(measure, program)
        return median(values) if values else None

    def ratios(self, measure: str, program: str, rival_measure: str, rival: str) -> list[float]:
        """The program's value divided by the rival's, for each round in which both were measured."""
        ours = self.samples.get(measure, {}).get(program, {})
        theirs = self.samples.get(rival_measure, {}).get(rival, {})
        return [ours[number] / theirs[number] for number in sorted(ours) if theirs.get(number)]

    def to_json(self) -> dict[str, Any]:
        samples = {
            measure: {
                program: {str(number): value for number, value in rounds.items()} for program, rounds in by.items()
            }
            for measure, by in self.samples.items()
        }
        return {**vars(self), "samples": samples}

    @classmethod
    def from_json(cls, report: dict[str, Any]) -> Results:
        results = cls(**report)
        results.samples = {
            measure: {
                program: {int(number): value for number, value in rounds.items()} for program, rounds in by.items()
            }
            for measure, by in report["samples"].items()
        }
        results.curves = {
            chart: {program: [(x, y) for x, y in points] for program, points in curves.items()}
            for chart, curves in report["curves"].items()
        }
        return results


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed, interpolated between two."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
