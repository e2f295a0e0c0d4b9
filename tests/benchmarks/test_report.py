"""What the benchmark suite makes of its measurements: ratios, verdicts, tables, charts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import charts, report
from benchmarks.__main__ import OTHERS
from benchmarks.goals import GO, GOALS, GOTATUN, MEASURES, WGPY, Goal, Verdict, figure
from benchmarks.results import Results, percentile
from benchmarks.traffic import TRAFFIC


def results() -> Results:
    found = Results(about={"date": "today"})
    for round_, (ours, theirs) in enumerate([(100.0, 100.0), (300.0, 100.0), (200.0, 100.0)]):
        found.add("tcp", WGPY, round_, ours, "iperf3")
        found.add("tcp", GO, round_, theirs, "iperf3")
    found.add("tcp", GOTATUN, 2, 50.0, "iperf3")
    found.add("ping_idle", WGPY, 0, 0.2, "ping")
    found.add("ping_idle", GO, 0, 0.1, "ping")
    found.add("wakeups", WGPY, 0, 0.0, "/proc")
    found.add("stage: split", WGPY, 0, 0.5, "pytest")
    found.curves["latency_load"] = {WGPY: [(50.0, 0.2), (99.0, 1.5)], GO: [(50.0, 0.1), (99.0, 9.0)]}
    found.curves["sizes"] = {WGPY: [(64.0, 20.0), (1300.0, 300.0)]}
    found.curves["peers_memory"] = {WGPY: [(1.0, 40.0), (10_000.0, 80.0)]}
    return found


def test_a_ratio_is_the_median_of_the_rounds_that_both_took_part_in() -> None:
    assert Goal("tcp", 0.6, 1.0, GO).reached(results()) == 2.0
    assert Goal("tcp", 0.6, 1.0, GOTATUN).reached(results()) == 4.0  # of round 2 only
    assert Goal("udp", 0.6, 1.0, GO).reached(results()) is None


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (Goal("tcp", 1.0, 2.0, GO), Verdict.TARGET),
        (Goal("tcp", 2.0, 2.1, GO), Verdict.MINIMUM),
        (Goal("tcp", 2.1, 3.0, GO), Verdict.MISSED),
        (Goal("tcp", None, 3.0, GO), Verdict.MISSED),
        (Goal("ping_idle", 2.5, 2.0, GO), Verdict.TARGET),
        (Goal("ping_idle", 2.5, 1.9, GO), Verdict.MINIMUM),
        (Goal("ping_idle", 1.9, 1.0, GO), Verdict.MISSED),
        (Goal("wakeups", 0.0, 0.0), Verdict.TARGET),
        (Goal("show", 1.0, 1.0), Verdict.UNKNOWN),
    ],
)
def test_less_is_better_for_some_measures_and_more_for_others(goal: Goal, verdict: Verdict) -> None:
    assert goal.verdict(results()) is verdict


def test_a_ratio_is_judged_as_the_table_shows_it() -> None:
    measured = results()
    measured.add("tcp8", WGPY, 0, 0.996, "iperf3")
    measured.add("tcp8", GO, 0, 1.0, "iperf3")
    assert Goal("tcp8", 0.9, 1.0, GO).verdict(measured) is Verdict.TARGET


def test_each_goal_belongs_to_a_measure() -> None:
    assert {goal.measure for goal in GOALS} < set(MEASURES)


def test_each_measure_can_be_named_on_the_command_line() -> None:
    assert {measure.name or key for key, measure in MEASURES.items()} <= {*TRAFFIC, *OTHERS}


def test_percentiles() -> None:
    assert [percentile([4, 1, 3, 2], percent) for percent in (0, 50, 100)] == [1, 2.5, 4]


@pytest.mark.parametrize(("value", "text"), [(12345.6, "12,346"), (99.94, "99.9"), (1.234, "1.23")])
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_results_survive_json() -> None:
    assert Results.from_json(json.loads(json.dumps(results().to_json()))) == results()


def test_the_document_has_ratios_goals_verdicts_and_spreads(tmp_path: Path) -> None:
    report.write(results(), tmp_path / "performance.md")
    lines = [re.sub(" +", " ", line) for line in (tmp_path / "performance.md").read_text().splitlines()]
    assert "| TCP, one flow, against wireguard-go | 2.00 x | 0.85 x | 1.00 x | target reached |" in lines
    assert "| ping, idle, 5 a second, against wireguard-go | 2.00 x | 1.50 x | 0.90 x | **missed** |" in lines
    assert "| UDP with GSO, without loss, against wireguard-go | | 0.60 x | 1.00 x | not measured |" in lines
    assert "| TCP, one flow | Mbit/s | 200 (100 to 300) | 100 (100 to 100) | 50.0 |" in lines
    for name in ("throughput", "stages", "latency_load", "sizes", "peers_memory"):
        assert f"![{name}](performance/{name}.svg)" in lines
        root = ElementTree.parse(tmp_path / "performance" / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_the_stored_page_has_the_generators_text() -> None:
    text = report.DOCUMENT.read_text()
    assert text.startswith(report._INTRODUCTION)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    verdicts = {row[4] for row in rows if len(row) == 5 and not row[0].startswith("---")}
    assert verdicts - {"verdict"} <= {verdict.value for verdict in Verdict}


def test_a_document_can_be_written_without_any_measurement(tmp_path: Path) -> None:
    report.write(Results(), tmp_path / "performance.md")
    assert "not measured" in (tmp_path / "performance.md").read_text()


def test_an_axis_ends_on_a_round_number() -> None:
    assert charts.Axis([3, 870], 0, 100).ticks[-1] == 900
    assert charts.Axis([0.2, 30], 0, 100, log=True).ticks == [0.1, 1.0, 10.0, 100.0]
    assert charts.Axis([], 0, 100)(0.5) == 50


def test_charts_escape_labels() -> None:
    chart = charts.bars("a < b & c", "Mbit/s", {"<tcp>": [charts.Bar("x&y", 1, 1, 2)]}, charts.palette(["x&y"]))
    assert "a < b & c (Mbit/s)" in "".join(ElementTree.fromstring(chart).itertext())
