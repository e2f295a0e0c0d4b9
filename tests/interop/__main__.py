"""The scenarios between WireGuard programs, on wgpy or on a program of yours: python -m tests.interop -h."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import pytest

from tests.interop import record
from tests.interop.catalogue import Scenario, scenarios
from tests.interop.kit import Kit
from tests.interop.programs import KINDS, installed
from tests.support.peers import Userspace
from tests.support.tools import missing
from wgpy import __version__

RECORD: Final = Path("docs/interop.md")
_MODULES: Final = "tests/interop"
_FOLLOWED: Final = "tests/daemon/test_serve.py::test_20_it_follows_its_interface_into_another_namespace"
_INTRODUCTION: Final = """\
# Implementations that wgpy was tested against

`make interop` writes this page. wgpy runs on one side, and on the other the Linux kernel's WireGuard, wireguard-go
(Debian's and the current one), boringtun, gotatun, or wgpy itself: those that were installed. The numbered scenarios
are those of the kernel's `tools/testing/selftests/wireguard/netns.sh`. The scenarios called "wire"
send single datagrams to a program's port and judge that program alone. wgpy's column has the results of scenarios that
involve wgpy alone, for example under the stock `wg` or under a flood. [What the scenarios
expect](../tests/interop) describes each of them, and [Test another WireGuard](how-to/interop.md) says how to run
them on your own program.
"""
_OF_ANOTHER: Final = """\
# What {name} did in wgpy's interop scenarios

The program under test was `{command}`. Each column names the program on the other side. The last column has the results
of scenarios that judge {name} alone, on the wire or by its configuration.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.interop",
        description="Run interop scenarios, on wgpy or on another WireGuard. Needs root.",
        epilog="Exit status: 0 all passed, 1 one failed, 2 not begun, 130 interrupted. How to: docs/how-to/interop.md",
    )
    parser.add_argument("--program", metavar="NAME=COMMAND", help="test this program, started as COMMAND -f INTERFACE")
    parser.add_argument("--against", metavar="PROGRAMS", help=f"on the other side, of {', '.join(KINDS)}, with commas")
    parser.add_argument(
        "--only", metavar="SCENARIO", action="append", help="run this scenario, by name or pattern; may be repeated"
    )
    parser.add_argument(
        "--cannot",
        metavar="SCENARIO=REASON",
        action="append",
        default=[],
        help="declare what the program cannot do: the scenario is not run, and is recorded with the reason",
    )
    parser.add_argument("--slow", action="store_true", help="run the scenarios that take minutes, too")
    parser.add_argument("--list", action="store_true", help="list the scenarios, and run none")
    parser.add_argument(
        "--write", metavar="FILE", nargs="?", const=RECORD, type=Path,
        help=f"write the record, a table in Markdown; without FILE, of wgpy only, to {RECORD}",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the outcome of each scenario as JSON")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write it as JUnit XML")
    parser.add_argument(
        "--packets", metavar="DIRECTORY", type=Path, default=Path("interop-packets"),
        help="where the packets of failed scenarios are kept, as pcap files (default: %(default)s)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    known = scenarios()
    if options.list:
        _print_list(known)
        return 0
    kit = _kit(parser, options, known)
    if lacking := missing():
        parser.error(f"the scenarios need {lacking}")
    os.environ["WGPY_INTEROP"] = "1"
    results = record.Results(kit)
    command = ["-q", "--tb=short", _MODULES, _FOLLOWED, "-o", f"junit_suite_name={kit.name}"]
    if options.junit:
        command.append(f"--junitxml={options.junit}")
    registered = _Registered(kit)
    try:
        status = pytest.main(command, plugins=[registered, results])
    except (KeyError, pytest.PytestUnraisableExceptionWarning):
        # Of an interrupted run, whose teardown is complete: pytest's tmp_path raises KeyError when its test was
        # interrupted during setup, and Python 3.14 warns of the process that nobody waited for.
        if not registered.interrupted:
            raise
    if registered.interrupted:
        return 130  # and the records are as they were
    if status == pytest.ExitCode.NO_TESTS_COLLECTED:
        parser.error(f"no test is named {' or '.join(kit.only)}")
    table = record.table(results)
    print(table)
    if reasons := record.failures(results):
        print(f"\n{reasons}")
    if options.write:
        if kit.tests_another:
            introduction = _OF_ANOTHER.format(name=kit.name, command=_command(kit))
        else:
            introduction = f"{_INTRODUCTION}\nOn this side wgpy {__version__} with Python {sys.version.split()[0]}.\n"
        record.write(options.write, f"{introduction}\n{table}\n")
    if options.json:
        record.write(options.json, record.as_json(results))
    return 0 if status == pytest.ExitCode.OK else 1


class _Registered:
    """Makes the kit known to `tests/interop/conftest.py`, before anything is collected."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self.interrupted = False

    def pytest_keyboard_interrupt(self) -> None:
        self.interrupted = True

    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.register(self._kit, "kit")


def _kit(parser: argparse.ArgumentParser, options: argparse.Namespace, known: Sequence[Scenario]) -> Kit:
    """What the options ask for. Ends the program when they make no sense."""
    against = tuple(options.against.split(",")) if options.against else ()
    for name in against:
        if name not in installed():
            why = "is not installed here" if name in KINDS else f"is not one of {', '.join(KINDS)}"
            parser.error(f"--against: {name} {why}")
    names = [scenario.name for scenario in known]
    cannot = dict(_declaration(parser, text, names) for text in options.cannot)
    kit = Kit(against=against, only=tuple(options.only or "*"), slow=options.slow, packets=options.packets)
    if options.program is None:
        if cannot:
            parser.error("--cannot is about the program of --program")
        return kit
    for pattern in kit.only:
        if not any(fnmatchcase(name, pattern) for name in names):
            parser.error(f"--only {pattern}: no scenario has that name; --list shows all")
    name, equals, command = options.program.partition("=")
    words = shlex.split(command)
    if not equals or not words or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        parser.error(f"--program {options.program}: expected NAME=COMMAND, as in mine=./wireguard-mine")
    if name in KINDS:
        parser.error(f"--program {name}: that name is one of our own; take another")
    if shutil.which(words[0]) is None:
        parser.error(f"--program {name}: there is no program {words[0]}")
    if options.write == RECORD:
        parser.error(f"--write: {RECORD} is wgpy's own record; say where: --write FILE")
    return replace(
        kit,
        name=name,
        tested=Userspace.called(name, words, cannot),
        against=against or tuple(name for name in ("kernel", "wireguard-go", "wgpy") if name in installed()),
    )


def _declaration(parser: argparse.ArgumentParser, text: str, names: Sequence[str]) -> tuple[str, str]:
    pattern, _, reason = text.partition("=")
    if not reason:
        parser.error(f"--cannot {text}: expected SCENARIO=REASON")
    if not any(fnmatchcase(name, pattern) for name in names):
        parser.error(f"--cannot {pattern}: no scenario has that name; --list shows all")
    return pattern, reason


def _command(kit: Kit) -> str:
    return shlex.join(getattr(kit.tested, "command", ()))


def _print_list(known: Sequence[Scenario]) -> None:
    try:
        for scenario in known:
            slow = " (slow)" if scenario.is_slow else ""
            print(f"{scenario.name}{slow}\n    {scenario.expected.partition(chr(10))[0]}")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads may stop early
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
