"""Writes docs/performance.md and its charts from results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import charts
from benchmarks.goals import GOALS, MEASURES, WGPY, Goal, figure
from benchmarks.results import Results

DOCUMENT: Final = Path("docs/performance.md")
_INTRODUCTION: Final = """\
# How fast wgpy is

`make bench` writes this page. Everything was measured in one run on one machine, and the programs took turns. Both ends
of a tunnel run the same program, in two network namespaces joined by a veth pair, so both ends and the load generator
share the machine's cores. iperf3 sends with CUBIC, Linux's default. Only what 64 peers send, or are sent, is in the
gateway's queues before the clock starts. A ratio is the median of the ratios of all rounds. This project has set itself
the minimum and the target.
"""
_THROUGHPUT: Final = ("tcp", "tcp8", "tcp50", "tcp_both", "tcp_inner6", "tcp_outer6", "udp", "udp_gso")
_LINE_CHARTS: Final = {
    "sizes": ("Throughput by packet size: single UDP datagrams, without loss", "bytes of UDP payload", "Mbit/s", False),
    "latency_idle": (
        "Latency of a ping, idle, less is better",
        "percent of pings that took no longer",
        "ms",
        True,
    ),
    "latency_load": (
        "Latency of a ping, under TCP, less is better",
        "percent of pings that took no longer",
        "ms",
        True,
    ),
    "peers_memory": ("Resident memory by number of peers", "peers", "MiB", True),
    "peers_configure": ("Time to add peers", "peers", "s", True),
}


def write(results: Results, document: Path = DOCUMENT) -> None:
    """Write the document, and its charts into a directory beside it."""
    directory = document.with_suffix("")
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.svg"):
        old.unlink()
    drawn = dict(draw(results))
    for name, chart in drawn.items():
        (directory / f"{name}.svg").write_text(chart)
    parts = [_INTRODUCTION, about(results), "## Goals\n", goals_table(results)]
    if missing := results.absent + results.failures:
        parts += ["Not measured:\n", "\n".join(f"- {reason}" for reason in missing) + "\n"]
    parts += ["## Figures\n", *(f"![{name}]({directory.name}/{name}.svg)\n" for name in drawn), figures(results)]
    parts += ["## How each figure was made\n", commands(results)]
    document.write_text("\n".join(parts))


def about(results: Results) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in results.about.items()) + "\n"


def goals_table(results: Results) -> str:
    """A row for each goal: the result, the minimum, the target, and which of them was reached."""
    rows = [
        (
            goal.title,
            goal.format(reached) if (reached := goal.reached(results)) is not None else "",
            goal.format(goal.minimum) if goal.minimum is not None else "",
            goal.format(goal.target),
            goal.verdict(results).value,
        )
        for goal in GOALS
    ]
    return _table(("measure", "result", "minimum", "target", "verdict"), rows)


def figures(results: Results) -> str:
    """A row for each measure: each program's median, and its smallest and largest value in parentheses."""
    programs = _programs(results)
    rows = []
    for measure, (title, unit, *_) in MEASURES.items():
        if measure in results.samples:
            cells = (_spread(results.values(measure, program)) for program in programs)
            rows.append((title, unit, *cells))
    return _table(("median (least to most)", "unit", *programs), rows)


def commands(results: Results) -> str:
    rows = [
        (measure.title, f"`{results.commands[key]}`", f"`python -m benchmarks {measure.name or key}`")
        for key, measure in MEASURES.items()
        if key in results.commands
    ]
    return _table(("measure", "command", "to measure it again"), rows)


def summary(results: Results) -> str:
    """The goals as lines for a terminal."""
    width = max(len(goal.title) for goal in GOALS)
    return "\n".join(
        f"{goal.title:{width}}  {_outcome(goal, results)}" for goal in GOALS if goal.reached(results) is not None
    )


def _outcome(goal: Goal, results: Results) -> str:
    reached = goal.reached(results)
    assert reached is not None
    minimum = "" if goal.minimum is None else f"minimum {goal.format(goal.minimum)}, "
    verdict = goal.verdict(results).value.strip("*")
    return f"{goal.format(reached):>14}  {minimum}target {goal.format(goal.target)}: {verdict}"


def draw(results: Results) -> Iterator[tuple[str, str]]:
    """The name and the SVG of each chart for which there are results."""
    programs = _programs(results)
    colours = charts.palette(programs)
    rows = {MEASURES[measure].title: _bars(results, measure, programs) for measure in _THROUGHPUT}
    rows = {title: group for title, group in rows.items() if group}
    if rows:
        yield "throughput", charts.bars("Throughput, more is better", "Mbit/s", rows, colours)
    for name, (title, x_title, y_title, log_y) in _LINE_CHARTS.items():
        if curves := results.curves.get(name):
            x_ticks = [x for x, _ in next(iter(curves.values()))] if name == "sizes" else []
            chart = charts.lines(
                title, x_title, y_title, curves, colours, log_x=name.startswith("peers"), log_y=log_y, x_ticks=x_ticks
            )
            yield name, chart
    stages = {name: points for name, points in results.samples.items() if name.startswith("stage: ")}
    if stages:
        named = {name.removeprefix("stage: "): _bars(results, name, [WGPY]) for name in stages}
        yield "stages", charts.bars("Cost of each stage", "us per packet of 1,420 bytes", named, charts.palette([WGPY]))


def _bars(results: Results, measure: str, programs: Iterable[str]) -> list[charts.Bar]:
    return [
        charts.Bar(program, median(values), min(values), max(values))
        for program in programs
        if (values := results.values(measure, program))
    ]


def _programs(results: Results) -> list[str]:
    """All programs that were measured: wgpy, then the others in the order of their first measurement."""
    found = {program: None for by_program in results.samples.values() for program in by_program}
    return [WGPY, *(program for program in found if program != WGPY)]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return figure(values[0])
    return f"{figure(median(values))} ({figure(min(values))} to {figure(max(values))})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, so that it is readable in a terminal too."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "".join(f"| {' | '.join(map(str.ljust, line, widths))} |\n" for line in lines)
