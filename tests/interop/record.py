"""The result of each scenario, as a table in Markdown and as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.interop.kit import FAILED, PACKETS, Kit, program_of, scenario_of, variant_of
from tests.interop.programs import KINDS, version
from tests.support.peers import Userspace
from wgpy import __version__

PASSED, SKIPPED, ENDED, FAILS = WORDS = (
    "pass",
    "skipped",
    "it ended",
    "**FAIL**",
)  # if several apply, the last is shown
CANNOT = "cannot"
_JSON = {PASSED: "pass", SKIPPED: "skipped", ENDED: "fail", FAILS: "fail", CANNOT: "cannot"}


@dataclass
class Outcome:
    """The result of one test: a scenario with one set of parameters, against one program."""

    scenario: str
    program: str
    variant: str
    word: str = ""  # one of WORDS, or CANNOT
    reason: str = ""
    packets: str = ""
    seconds: float = 0.0


class Results:
    """A pytest plugin that collects the result of each test."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.outcomes: dict[str, Outcome] = {}  # by the test's id
        self.exits: dict[str, set[int]] = {}  # by program: the exit statuses of daemons that ended by themselves
        self.began = datetime.now(UTC)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            told = {"scenario": scenario_of(item), "program": program_of(item) or self.kit.name}
            item.user_properties += [*told.items(), ("variant", variant_of(item))]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        report = yield
        if item.stash.get(FAILED, False) and PACKETS in item.stash:
            report.user_properties.append(("packets", str(item.stash[PACKETS])))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told: dict[str, Any] = dict(report.user_properties)
        outcome = self.outcomes.setdefault(report.nodeid, Outcome(told["scenario"], told["program"], told["variant"]))
        outcome.seconds += report.duration
        if report.skipped:
            outcome.word = CANNOT if hasattr(report, "wasxfail") else SKIPPED
            said = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            said = getattr(report, "wasxfail", said)
            outcome.reason = said.removeprefix("Skipped: ").removeprefix("reason: ")
        elif report.failed:
            exits = {daemon.process.returncode for daemon in Userspace.ended()}
            self.exits.setdefault(outcome.program, set()).update(exits)
            outcome.word = max(outcome.word or PASSED, ENDED if exits else FAILS, key=WORDS.index)
            outcome.reason = outcome.reason or _reason(report)
            outcome.packets = told.get("packets", "")
        elif report.when == "call":
            outcome.word = PASSED

    def pytest_runtest_logfinish(self) -> None:
        """A test is over: its namespaces are gone, so end every daemon that it did not close."""
        for daemon in tuple(Userspace.started):
            daemon.close()


def _reason(report: pytest.TestReport) -> str:
    """Why it failed: the text of the error, and the sections that were added to it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    said = [(crash.message if crash is not None else report.longreprtext).removeprefix("AssertionError: ")]
    said += [f"{title}: {text}" for title, text, _ in getattr(report.longrepr, "sections", ())]
    return "\n".join(said)


def table(results: Results) -> str:
    """The record in Markdown: a row for each scenario, with how often it passed; empty where it does not apply."""
    outcomes = list(results.outcomes.values())
    known = [*KINDS, *(name for name in (results.kit.name,) if name not in KINDS)]
    programs = [program for program in known if any(outcome.program == program for outcome in outcomes)]
    lines = ["| scenario |" + "".join(f" {version(program)} |" for program in programs)]
    lines.append("|---|" + "---|" * len(programs))
    for name in sorted({outcome.scenario: None for outcome in outcomes}, key=_number):
        found = [outcome for outcome in outcomes if outcome.scenario == name]
        cells = (_cell([outcome.word for outcome in found if outcome.program == program]) for program in programs)
        lines.append(f"| {name.replace('_', ' ')} |" + "".join(f" {cell} |" for cell in cells))
    if reasons := sorted({outcome.reason for outcome in outcomes if outcome.word == CANNOT}):
        lines += [
            "",
            f'"cannot": the program is declared not to support this, so it was not run: {"; ".join(reasons)}.',
        ]
    exits = [f"{version(program)} with status {_list(codes)}" for program, codes in results.exits.items() if codes]
    if exits:
        lines += [
            "",
            f'"it ended": a program had exited by itself when the scenario failed: {"; ".join(exits)}.',
        ]
    return "\n".join(lines)


def failures(results: Results) -> str:
    """Why each test failed; empty when none did."""
    lines = []
    for outcome in results.outcomes.values():
        if outcome.word in (ENDED, FAILS):
            variant = f" ({outcome.variant})" if outcome.variant else ""
            lines.append(f"{outcome.scenario} with {outcome.program}{variant}: {outcome.reason}")
    return "\n\n".join(lines)


def as_json(results: Results) -> str:
    """The record as JSON, for other programs to read."""
    outcomes = list(results.outcomes.values())
    words = [_JSON.get(outcome.word, "fail") for outcome in outcomes]
    kit = results.kit
    document = {
        "program": {"name": kit.name, "command": list(getattr(kit.tested, "command", ()))},
        "wgpy": __version__,
        "python": sys.version.split()[0],
        "began": results.began.isoformat(timespec="seconds"),
        "summary": {word: words.count(word) for word in ("pass", "fail", "cannot", "skipped")},
        "results": [
            {
                "scenario": outcome.scenario,
                "against": "" if outcome.program == kit.name and kit.tests_another else outcome.program,
                "variant": outcome.variant,
                "outcome": word,
                "seconds": round(outcome.seconds, 3),
                "reason": outcome.reason,
                "packets": outcome.packets,
            }
            for outcome, word in zip(outcomes, words, strict=True)
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _list(statuses: set[int]) -> str:
    return " and ".join(map(str, sorted(statuses)))


def _number(name: str) -> int:
    """The kernel's of a scenario; those it does not have come first."""
    word = name.partition("_")[0]
    return int(word) if word.isdecimal() else 0


def _cell(words: list[str]) -> str:
    if not words:
        return ""
    if CANNOT in words:
        return CANNOT
    word = max(words, key=WORDS.index)
    return word if len(words) == 1 else f"{word} ({words.count(PASSED)} of {len(words)})"
