"""The two clients that compare TCP/IP stacks know the same measurements, and each has its row in the report."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.goals import GOALS, MEASURES
from benchmarks.stack import PARTS
from benchmarks.stack_client import LOADS

OTHER = Path(__file__).parents[2] / "benchmarks" / "gvisor" / "main.go"


def test_both_clients_know_every_measure() -> None:
    asked = {part.what for part in PARTS.values()}
    assert asked == {*LOADS, "start", "idle"}
    assert asked == set(re.findall(r'^\tcase "(\w+)":', OTHER.read_text(), re.MULTILINE))


def test_each_measure_has_a_goal() -> None:
    assert PARTS.keys() == {key for key, measure in MEASURES.items() if measure.name == "stack"}
    assert PARTS.keys() <= {goal.measure for goal in GOALS}
