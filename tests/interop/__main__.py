"""`make interop`: the tests against another WireGuard, and their record: python -m tests.interop [--write]."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.kernel_peer import has_wireguard, images
from wgpy import __version__

RECORD: Final = Path("docs/interop.md")
PROGRAMS: Final = ("kernel", "wireguard-go", "wgpy")
_MODULES: Final = ("tests/interop/test_peers.py", "tests/interop/test_netns_scenarios.py")
_INTRODUCTION: Final = """\
# Who wgpy was tested against

Written by `make interop`. wgpy stands on one side, and on the other the Linux kernel's own WireGuard, Debian's
wireguard-go, or wgpy. The numbered scenarios are those of the kernel's `tools/testing/selftests/wireguard/netns.sh`.
"""


class Results:
    """A pytest plugin: what became of each test, by its name and by the program on the other side."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, list[bool]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        match = re.fullmatch(r".*::test_(\w+)\[(.*)\]", report.nodeid)
        if match is None or (report.when != "call" and report.passed):
            return
        program = next(program for program in PROGRAMS if program in match[2])
        self.outcomes.setdefault(match[1], {}).setdefault(program, []).append(report.passed)


def table(results: Results) -> str:
    """The record, in Markdown: a row for each scenario, how often it passed, and nothing where it does not apply."""
    heads = {
        "kernel": f"Linux {kernel_version()}",
        "wireguard-go": f"wireguard-go {_debian('wireguard-go')}",
        "wgpy": "wgpy",
    }
    lines = ["| scenario |" + "".join(f" {heads[program]} |" for program in PROGRAMS), "|---|" + "---|" * len(PROGRAMS)]
    for name, by_program in results.outcomes.items():
        cells = (_cell(by_program.get(program, [])) for program in PROGRAMS)
        lines.append(f"| {name.replace('_', ' ')} |" + "".join(f" {cell} |" for cell in cells))
    return "\n".join(lines)


def _cell(passed: list[bool]) -> str:
    if not passed:
        return ""
    word = "pass" if all(passed) else "**FAIL**"
    return word if len(passed) == 1 else f"{word} ({sum(passed)} of {len(passed)})"


def kernel_version() -> str:
    if has_wireguard():
        return subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    return images()[0].name.removeprefix("vmlinuz-")


def _debian(package: str) -> str:
    query = ["dpkg-query", "-W", "-f", "${Version}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout or "(not Debian's)"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interop", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--write", action="store_true", help=f"write the record into {RECORD}")
    arguments = parser.parse_args()
    results = Results()
    status = pytest.main(["-q", *_MODULES], plugins=[results])
    record = table(results)
    print(record)
    if arguments.write:
        RECORD.write_text(f"{_INTRODUCTION}\nwgpy {__version__}, Python {sys.version.split()[0]}.\n\n{record}\n")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
