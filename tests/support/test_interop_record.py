"""The record of `make interop`: a failure is ours, unless their program had ended by itself."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from typing import Literal

import pytest

from tests.interop.kit import Kit
from tests.interop.record import Results, table
from tests.support.peers import Userspace


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Iterator[Results]:
    monkeypatch.setattr(Userspace, "started", [])
    monkeypatch.setattr("tests.interop.record.version", lambda program: f"{program} 1.0")
    yield Results(Kit())
    for daemon in tuple(Userspace.started):
        daemon.close()


def report(results: Results, program: str, outcome: Literal["passed", "failed"]) -> None:
    name = f"tests/interop/test_peers.py::test_ping[{program}-{len(results.outcomes)}]"
    told = [("scenario", "ping"), ("program", program), ("variant", "")]
    results.pytest_runtest_logreport(
        pytest.TestReport(name, (name, 1, name), {}, outcome, "why", "call", user_properties=told)
    )


def start(*command: str) -> None:
    """A daemon that is only a process."""
    daemon = Userspace.__new__(Userspace)
    daemon.process = subprocess.Popen(command, text=True)
    daemon.output = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by close)
    Userspace.started.append(daemon)


def test_a_program_that_ended_by_itself_is_told_from_one_that_failed(results: Results) -> None:
    report(results, "kernel", "failed")
    start("sleep", "60")
    report(results, "boringtun", "failed")
    start("sh", "-c", "sleep 0.1; exit 3")  # as one that says nothing more and is on its way out
    report(results, "gotatun", "failed")
    assert table(results).splitlines()[2:] == [
        "| ping | **FAIL** | **FAIL** | it ended |",
        "",
        '"it ended": a program had exited by itself when the scenario failed: gotatun 1.0 with status 3.',
    ]


def test_our_failure_is_not_hidden_by_the_end_of_their_program(results: Results) -> None:
    report(results, "gotatun", "passed")
    start("false")
    report(results, "gotatun", "failed")
    assert "| it ended (1 of 2) |" in table(results)
    results.pytest_runtest_logfinish()
    report(results, "gotatun", "failed")
    assert "| **FAIL** (1 of 3) |" in table(results)


def test_a_program_that_ended_in_a_passed_test_does_not_count(results: Results) -> None:
    start("false")
    report(results, "gotatun", "passed")
    assert table(results).splitlines()[2:] == ["| ping | pass |"]
