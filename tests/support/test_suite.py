"""`make test` itself: a failure anywhere fails the run, and its processes are kept apart."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import pythons, suite

ROOT = Path(suite.__file__).parents[2]


@pytest.fixture(autouse=True)
def _quickly_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs that these tests start, elsewhere, need this package, and no plugin but xdist: most load slowly."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "xdist.plugin")


TESTS = """\
import pytest
def test_passes(): pass
def test_fails(): assert 0
@pytest.mark.skip
def test_skips(): pass
@pytest.mark.xfail
def test_is_known_to_fail(): assert 0
@pytest.mark.quiet
def test_quiet(): pass
"""


def add_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("here", "quiet", "tested", "status"),
    [(0, 0, 0, 0), (0, 5, 0, 0), (1, 0, 0, 1), (5, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)],
)
def test_what_fails_in_one_part_fails_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    here: int,
    quiet: int,
    tested: int,
    status: int,
) -> None:
    """5 is that no test was found, which may be so for those that need a quiet machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(suite, "prepare", lambda: None)
    monkeypatch.setattr(
        suite, "tests", lambda _, chosen, __: ["sh", "-c", f"exit {quiet if 'quiet' in chosen else here}"]
    )
    add_program(tmp_path / "python9.9", "exit 0")
    add_program(tmp_path / ".venv-9.9/bin/python", f"echo 7 tests; exit {tested}")
    assert suite.main([pythons.OWN, "9.8", "9.9"]) == status
    assert "7 tests" in capfd.readouterr().out


@pytest.mark.parametrize("status", [0, 2])
def test_each_python_that_is_found_is_set_up_and_a_failure_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], status: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    add_program(tmp_path / "python9.9", "exit 0")
    add_program(tmp_path / "tests/support/venv.sh", f"echo setting up $2; exit {status}")
    assert pythons.main([pythons.OWN, "9.8", "9.9"]) == status
    assert capfd.readouterr().out == "setting up .venv-9.9\n"


PASSES_LATE = """\
import pathlib, pytest
@pytest.mark.parametrize("number", range({failing}))
@pytest.mark.xdist_group("one")
def test_fails_at_first(number):
    seen = pathlib.Path(f"seen-{{number}}")
    if not seen.exists():
        seen.touch()
        assert 0
def test_passes(): assert not pathlib.Path("again").exists()
"""


@pytest.mark.parametrize(("failing", "status"), [(1, 0), (suite.MAX_REPEATED, 0), (suite.MAX_REPEATED + 1, 1)])
def test_a_few_failures_are_repeated_alone_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], failing: int, status: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(suite, "prepare", lambda: None)
    monkeypatch.setattr(suite, "PROCESSES", 2)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = quiet\n")
    (tmp_path / "test_late.py").write_text(PASSES_LATE.format(failing=failing))
    assert suite.main([]) == status
    said = capfd.readouterr().out
    assert ("once more, alone" in said) is (status == 0)
    for number in range(failing):
        name = (
            f"PASSED ONLY WHEN REPEATED ALONE, on Python {pythons.OWN}: test_late.py::test_fails_at_first[{number}]\n"
        )
        assert (name in said) is (status == 0)


def test_the_summary_counts_all_parts_and_names_the_slowest_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(suite, "prepare", lambda: None)
    monkeypatch.setattr(suite, "PROCESSES", 2)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = quiet\n")
    (tmp_path / "test_here.py").write_text(TESTS)
    assert suite.main([]) == 1
    summary = capfd.readouterr().out.partition("==> all together\n")[2]
    summary = re.sub(r"[0-9.]+ min", "M min", summary)
    assert f"Python {pythons.OWN}: 4 tests in M min, 1 failed, 1 skipped\n" in summary
    assert f"Python {pythons.OWN}, again: 1 tests in M min, 1 failed, 0 skipped\n" in summary
    assert f"Python {pythons.OWN}, quiet: 1 tests in M min, 0 failed, 0 skipped\n" in summary
    assert len([line for line in summary.splitlines() if "s  test_here.py::test_" in line]) == 6


def test_a_free_threaded_python_counts_as_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Debian and Fedora name it, and as pyenv does."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("HOME", str(tmp_path))
    add_program(tmp_path / "python9.9t", "exit 0")
    add_program(tmp_path / ".pyenv/versions/9.8.1t/bin/python", "exit 0")
    add_program(tmp_path / "python9.7t", "exit 1")  # which cannot make virtual environments
    assert pythons.interpreter("9.9t") == str(tmp_path / "python9.9t")
    assert pythons.interpreter("9.8t") == str(tmp_path / ".pyenv/versions/9.8.1t/bin/python")
    assert [pythons.interpreter(version) for version in ("9.9", "9.8", "9.7t")] == [None, None, None]


@pytest.mark.root
def test_isolated_programs_may_use_the_same_names(tmp_path: Path) -> None:
    apart = (sys.executable, "-m", "tests.support.apart", "sh", "-ec")
    script = """
    pwd; ip netns add same; ip tuntap add same mode tun; ip address add 192.0.2.1/32 dev same
    touch /run/wgpy/same /run/wireguard/same; stat -c %a /run/wgpy /run/wireguard
    echo ready >&2; read -r line
    ls /run/netns /run/wgpy"""
    processes = [
        subprocess.Popen(
            (*apart, script), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
    for process in processes:
        said, _ = process.communicate("go on\n")
        assert said == f"{Path.cwd()}\n755\n755\n/run/netns:\nsame\n\n/run/wgpy:\nsame\n"
        assert process.returncode == 0
    assert not [path for path in Path("/run").glob("*/same") if path.parent.name in ("netns", "wgpy", "wireguard")]


GROUPS = """\
import os, pytest
@pytest.mark.parametrize("number", range(12))
@pytest.mark.xdist_group("one")
def test_it(number):
    with open("processes", "a") as file:
        print(os.getpid(), file=file)
"""


def test_a_group_runs_in_one_process(tmp_path: Path) -> None:
    """pytest-xdist does without a word what it cannot read: several emulated kernels at once, for one."""
    tests = tmp_path / "test_groups.py"
    tests.write_text(GROUPS)
    command = (sys.executable, "-m", "pytest", "-q", "-n3", "--dist=loadgroup", "-p", "no:cacheprovider", str(tests))
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert len(set((tmp_path / "processes").read_text().split())) == 1


def test_a_process_that_dies_ends_the_run(tmp_path: Path) -> None:
    """pytest-xdist 3.8 would start another, and wait forever for what the first had still to do."""
    tests = tmp_path / "test_dying.py"
    tests.write_text("import os\nimport pytest\n\n@pytest.mark.parametrize('i', range(20))\ndef test(i): os._exit(3)\n")
    command = suite.tests(tmp_path / "results", [str(tests), "-p", "no:cacheprovider"], 2)
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120).returncode not in (0, 5)
