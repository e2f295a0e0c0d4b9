"""`make interop`: the tests against another WireGuard, and their record: python -m tests.interop [--write]."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.interop.conftest import DAEMONS
from tests.support.kernel_peer import has_wireguard, images
from tests.support.peers import Userspace
from wgpy import __version__

PASSED, ENDED, FAILED = WORDS = ("pass", "it ended", "**FAIL**")  # the last that applies is said
RECORD: Final = Path("docs/interop.md")
PROGRAMS: Final = ("kernel", *DAEMONS, "wgpy")
_MODULES: Final = "tests/interop"
_FOLLOWED: Final = "tests/daemon/test_serve.py::test_20_it_follows_its_interface_into_another_namespace"
_INTRODUCTION: Final = """\
# Who wgpy was tested against

Written by `make interop`. wgpy stands on one side, and on the other the Linux kernel's own WireGuard, wireguard-go
(Debian's and the current one), boringtun, gotatun, or wgpy; those that were installed. The numbered scenarios are
those of the kernel's `tools/testing/selftests/wireguard/netns.sh`. What concerns our end alone, under the stock `wg` or
a flood, is in wgpy's column.
"""


class Results:
    """A pytest plugin: what became of each test, by its name and by the program on the other side."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, list[str]]] = {}  # WORDS
        self.refusals: dict[tuple[str, str], str] = {}  # why a test makes no sense with a program
        self.exits: dict[str, set[int]] = {}  # statuses of the programs that ended by themselves

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        match = re.fullmatch(r".*::test_(\w+)(?:\[(.*)\])?", report.nodeid)
        if match is None or (report.when != "call" and report.passed):
            return
        words = re.split(r"-(?!go)", match[2] or "")
        program = next((program for program in PROGRAMS if program in words), "wgpy")
        if report.skipped:
            said = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.wasxfail
            self.refusals[match[1], program] = said.removeprefix("Skipped: ").removeprefix("reason: ")
            self.outcomes.setdefault(match[1], {})
            return
        exits = Userspace.ended() if report.failed else []
        word = PASSED if report.passed else ENDED if exits else FAILED
        self.exits.setdefault(program, set()).update(exits)
        self.outcomes.setdefault(match[1], {}).setdefault(program, []).append(word)

    def pytest_runtest_logfinish(self) -> None:
        """A test is over, and its namespaces are gone with everything that it did not close."""
        Userspace.started.clear()


def table(results: Results) -> str:
    """The record, in Markdown: a row for each scenario, how often it passed, and nothing where it does not apply."""
    present = [program for program in PROGRAMS if any(program in found for found in results.outcomes.values())]
    lines = ["| scenario |" + "".join(f" {version(program)} |" for program in present), "|---|" + "---|" * len(present)]
    for name, by_program in sorted(results.outcomes.items(), key=lambda row: _number(row[0])):
        cells = (
            "cannot" if (name, program) in results.refusals else _cell(by_program.get(program, []))
            for program in present
        )
        lines.append(f"| {name.replace('_', ' ')} |" + "".join(f" {cell} |" for cell in cells))
    if results.refusals:
        reasons = sorted(set(results.refusals.values()))
        lines += ["", f"Where it says cannot, wireguard-go on our side fares no better: {'; '.join(reasons)}."]
    ended = [f"{version(program)} with status {_list(exits)}" for program, exits in results.exits.items() if exits]
    if ended:
        lines += [
            "",
            f"Where it says it ended, their program had exited by itself when the test failed: {'; '.join(ended)}.",
        ]
    return "\n".join(lines)


def _list(statuses: set[int]) -> str:
    return " and ".join(map(str, sorted(statuses)))


def _number(name: str) -> int:
    """The kernel's of a scenario; those it does not have come first."""
    word = name.partition("_")[0]
    return int(word) if word.isdecimal() else 0


def _cell(words: list[str]) -> str:
    if not words:
        return ""
    word = max(words, key=WORDS.index)
    return word if len(words) == 1 else f"{word} ({words.count(PASSED)} of {len(words)})"


def kernel_version() -> str:
    if has_wireguard():
        return subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    return images()[0].name.removeprefix("vmlinuz-")


def version(program: str) -> str:
    """A program's name and its version, as it or its package tells."""
    if program in ("kernel", "wgpy"):
        return f"Linux {kernel_version()}" if program == "kernel" else f"wgpy {__version__}"
    if program == "wireguard-go":
        return f"wireguard-go {_output('dpkg-query', '-W', '-f', '${Version}', program)} (Debian's)"
    command = DAEMONS[program].command[0]
    if program == "current":
        found = re.search(r"mod\s+\S+\s+(\S+)", _output("go", "version", "-m", command))
        return f"wireguard-go {found[1] if found else ''}"
    return _output(command, "--version").splitlines()[0]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interop", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--write", action="store_true", help=f"write the record into {RECORD}")
    arguments = parser.parse_args()
    os.environ["WGPY_INTEROP"] = "1"
    results = Results()
    status = pytest.main(["-q", _MODULES, _FOLLOWED], plugins=[results])
    record = table(results)
    print(record)
    if arguments.write:
        RECORD.write_text(
            f"{_INTRODUCTION}\nOn this side wgpy {__version__} with Python {sys.version.split()[0]}.\n\n{record}\n"
        )
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
