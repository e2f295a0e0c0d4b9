"""The record of `make interop`: a failure is ours, unless their program had ended by itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Literal

import pytest

from tests.interop.__main__ import Results, table
from tests.support.peers import Userspace


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Iterator[Results]:
    monkeypatch.setattr(Userspace, "started", [])
    monkeypatch.setattr("tests.interop.__main__.version", lambda program: f"{program} 1.0")
    yield Results()
    for process in Userspace.started:
        process.kill()
        process.wait()


def report(results: Results, program: str, outcome: Literal["passed", "failed"]) -> None:
    name = f"tests/interop/test_peers.py::test_ping[{program}]"
    results.pytest_runtest_logreport(pytest.TestReport(name, (name, 1, name), {}, outcome, None, "call"))


def start(*command: str) -> None:
    Userspace.started.append(subprocess.Popen(command, text=True))


def test_who_ended_by_itself_is_told_from_who_failed(results: Results) -> None:
    report(results, "kernel", "failed")
    start("sleep", "60")
    report(results, "boringtun", "failed")
    start("sh", "-c", "sleep 0.1; exit 3")  # as one that says nothing more and is on its way out
    report(results, "gotatun", "failed")
    assert table(results).splitlines()[2:] == [
        "| ping | **FAIL** | **FAIL** | it ended |",
        "",
        "Where it says it ended, their program had exited by itself when the test failed: gotatun 1.0 with status 3.",
    ]


def test_one_failure_of_ours_is_not_hidden_by_an_end_of_theirs(results: Results) -> None:
    report(results, "gotatun", "passed")
    start("false")
    report(results, "gotatun", "failed")
    assert "| it ended (1 of 2) |" in table(results)
    results.pytest_runtest_logfinish()
    report(results, "gotatun", "failed")
    assert "| **FAIL** (1 of 3) |" in table(results)


def test_who_ended_in_a_test_that_passed_is_of_no_account(results: Results) -> None:
    start("false")
    report(results, "gotatun", "passed")
    assert table(results).splitlines()[2:] == ["| ping | pass |"]
