"""Tests on several Pythons side by side: stand-ins for the other one, and a pytest that has a single test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import suite


@pytest.mark.parametrize(("set_up", "tested", "status"), [(0, 0, 0), (0, 1, 1), (1, 0, 1)])
def test_what_fails_on_one_python_fails_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    set_up: int,
    tested: int,
    status: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "test_here.py").write_text("def test_here(): pass\n")
    for program, script in {
        "python9.9": "exit 0",
        "tests/support/venv.sh": f"echo setting up $2; exit {set_up}",
        ".venv-9.9/bin/python": f"echo 7 tests; exit {tested}",
    }.items():
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    assert suite.main([suite.OWN, "9.8", "9.9"]) == status
    said = capfd.readouterr().out
    assert "1 passed" in said.partition("on Python 9.9\n")[0]
    assert "setting up .venv-9.9" in said
    assert ("7 tests" in said) is (set_up == 0)


def test_what_fails_here_fails_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_here.py").write_text("def test_here(): assert 0\n")
    assert suite.main([]) == 1
