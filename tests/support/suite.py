"""`make test`: every test on this Python and, beside them, those that need no root on the other Pythons found.

    python -m tests.support.suite VERSION...

Most tests wait most of the time, for a timer or for a program that starts. So those of this Python are spread over
several processes, which `tests.support.apart` keeps out of each other's way; those marked `quiet` come last, one at a
time, when nothing else runs. The other Pythons, which `tests.support.pythons` has set up, run at the lowest priority:
two at a time, each in one process, since each process has to load all tests. What they print is shown when all is done.

A test beside four others on two processors may wait for its turn longer than any timer of a protocol allows for. So
the few that failed run again, alone, and the summary names those that passed only then. The exit status is 1 when a
test failed twice, or more than MAX_REPEATED failed once.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest

from tests.support import kernel_peer, machine
from tests.support.pythons import OWN, environment, found
from tests.support.tools import missing

# The code is the same on the others: few examples show what a Python does otherwise, and the tests' own tools and the
# programs that they start run here.
QUICK: Final = "not root and not fuzzer and not peer"
SAMPLE: Final = ("-p", "tests.support.sample", "--hypothesis-profile=brief")
WITHOUT_ROOT: Final = ("-m", QUICK, "--ignore=tests/support", *SAMPLE)
# What no Python changes: the text of pages, and who imports whom; how many queries a page of ten thousand rows takes;
# what shells offer; and what `make install` puts where, which `make wheel` installs on each Python.
STATIC: Final = tuple(
    f"--ignore=tests/{name}.py"
    for name in (
        "test_layers", "test_documents", "test_reference", "test_types", "test_install", "cli/test_completion",
        "gateway/web/console/test_scale",
    )
)  # fmt: skip
# What takes more than half of the time is tried on the newest and the oldest: the gateway and the simulated hours.
DEAR: Final = tuple(f"--ignore=tests/{name}" for name in ("gateway", "simulation"))
PROCESSES: Final = 2 * (os.cpu_count() or 1)
SLOWEST: Final = 20
MAX_REPEATED: Final = 3  # more failures than that are no accident


def main(versions: list[str]) -> int:
    others = list(found(versions))
    with tempfile.TemporaryDirectory(prefix="wgpy-tests-") as directory, ThreadPoolExecutor(2) as pool:
        results = Path(directory)
        running = {}
        for version in others:
            log = results / f"{version}.log"
            print(f"==> beside them, the tests that need no root on Python {version}: {log}", flush=True)
            omitted = STATIC if version == others[-1] else (*STATIC, *DEAR)
            running[log] = pool.submit(run_beside, version, results, omitted)
        prepare()
        print(f"==> every test on Python {OWN}, in {PROCESSES} processes", flush=True)
        statuses = {OWN: run(tests(results / OWN, ("-m", "not quiet"), PROCESSES))}
        for log, other in running.items():
            statuses[log.stem] = other.result()
            print(f"==> the tests that need no root on Python {log.stem}", log.read_text(), sep="\n", flush=True)
        print(f"==> the tests on Python {OWN} that need a quiet machine, one at a time", flush=True)
        quiet = run(tests(results / f"{OWN}, quiet", ("-m", "quiet", *files_with("quiet")), 1))
        statuses[f"{OWN}, quiet"] = pytest.ExitCode.OK if quiet == pytest.ExitCode.NO_TESTS_COLLECTED else quiet
        failed = {name for name, status in statuses.items() if status != pytest.ExitCode.OK}
        late = [test for name in sorted(failed) for test in repeat(results, name, statuses[name])]
        failed -= {name for name, _ in late}
        print(summary(results), *(complaint(*test) for test in late), sep="\n", flush=True)
    return int(bool(failed))


def run(command: list[str]) -> int:
    """The exit status of a command."""
    return subprocess.run(command, check=False).returncode


def repeat(results: Path, name: str, status: int) -> list[tuple[str, str]]:
    """Run what failed in the run called `name` again, alone. Returns them with `name` if all pass now."""
    failed = failures(results / f"{name}.xml") if status == pytest.ExitCode.TESTS_FAILED else []
    if not 0 < len(failed) <= MAX_REPEATED:
        return []
    print(f"==> once more, alone, what failed on Python {name}", *failed, sep="\n", flush=True)
    version, again = name.partition(",")[0], results / f"{name}, again"
    command = tests(again, failed, 1) if version == OWN else beside(version, again, failed)
    return [(name, test) for test in failed] if run(command) == pytest.ExitCode.OK else []


def failures(path: Path) -> list[str]:
    """The tests that failed, as pytest names them; xdist adds a test's group to its name."""
    if not path.exists():
        return []  # the run failed before its first test
    cases = ElementTree.parse(path).iter("testcase")
    failed = [case for case in cases if {"failure", "error"} & {child.tag for child in case}]
    return [f"{case.get('file')}::{re.sub('@[a-z]+$', '', case.get('name', ''))}" for case in failed]


def complaint(name: str, test: str) -> str:
    """The line of the summary about a test that did not pass at once."""
    return f"PASSED ONLY WHEN REPEATED ALONE, on Python {name}: {test}"


def tests(results: Path, chosen: Iterable[str], processes: int) -> list[str]:
    """The command that runs the `chosen` tests. What became of each will be in `results`, as JUnit XML.

    Their files lie beside it: every other run of pytest closes pytest's usual directory to all but its owner.
    """
    files = f"--basetemp={results.parent}/tmp"
    command = [sys.executable, "-m", "pytest", "-q", *chosen, files, f"--junitxml={results}.xml"]
    worker = (sys.executable,) if missing() else (sys.executable, "-m", "tests.support.apart", sys.executable)
    return [
        *command,
        "-o",
        "junit_family=xunit1",
        "--dist=loadgroup",
        "--max-worker-restart=0",  # pytest-xdist 3.8 waits forever for tests of a process that died
        f"--tx={processes}*popen//python={shlex.join(worker)}",
    ]


def files_with(marker: str) -> list[str]:
    """The files that name a marker: to look for its tests in all files takes longer than to find these."""
    return [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if f"mark.{marker}" in path.read_text()]


def prepare() -> None:
    """Do once what all processes would do.

    To load all tests leaves their bytecode, and that of what they load. What some tests boot is downloaded: apart, they
    reach no network. If it cannot be had, those tests say so.
    """
    subprocess.run((sys.executable, "-m", "pytest", "-q", "--collect-only"), stdout=subprocess.DEVNULL, check=False)
    if not missing():
        with suppress(AssertionError, OSError):
            kernel_peer.images()
            kernel_peer.unpacked(machine.RESOLVED)


def run_beside(version: str, results: Path, omitted: Sequence[str]) -> int:
    """Run the tests on another Python but for the `omitted`; the exit status."""
    command = ("nice", "-n", "19", *beside(version, results / version, omitted))
    with (results / f"{version}.log").open("w") as output:
        return subprocess.run(command, stdout=output, stderr=output, check=False).returncode


def beside(version: str, results: Path, chosen: Iterable[str]) -> list[str]:
    """The command that runs the `chosen` of the tests that need no root, or all, on another Python."""
    report = ("-p", "no:cacheprovider", f"--junitxml={results}.xml", "-o", "junit_family=xunit1")
    return [
        f"{environment(version)}/bin/python",
        "-m",
        "pytest",
        "-q",
        *WITHOUT_ROOT,
        *report,
        *chosen,
    ]


def summary(results: Path) -> str:
    """What became of the tests on each Python, and which were the slowest."""
    lines, times = ["==> all together"], []
    for path in sorted(results.glob("*.xml")):
        (suite,) = ElementTree.parse(path).iter("testsuite")
        cases = [(case, {child.tag for child in case}) for case in suite.iter("testcase")]
        failed = sum(bool(tags & {"failure", "error"}) for _, tags in cases)
        skipped = sum(skip.get("type") == "pytest.skip" for skip in suite.iter("skipped"))
        minutes = float(suite.get("time", 0)) / 60
        lines.append(f"Python {path.stem}: {len(cases)} tests in {minutes:.1f} min, {failed} failed, {skipped} skipped")
        times += [
            (float(case.get("time", 0)), f"{case.get('file')}::{case.get('name')} on {path.stem}") for case, _ in cases
        ]
    slowest = sorted(times, reverse=True)[:SLOWEST]
    return "\n".join([*lines, "the slowest tests:", *(f"{seconds:7.1f} s  {name}" for seconds, name in slowest)])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
