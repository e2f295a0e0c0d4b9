"""A short run of each fuzz target, and every input that ever broke one, played again."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import FOUND
from tests.fuzz.targets import SEEDS, TARGETS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_found_before_cause_no_failure_again(name: str) -> None:
    target = TARGETS[name]
    for data in [*SEEDS[target], *(path.read_bytes() for path in sorted((FOUND / name).glob("*")))]:
        target(data)


@pytest.mark.fuzzer
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    runs = {
        name: subprocess.Popen(
            (sys.executable, "-m", "tests.fuzz", name, "--seconds", "2"),
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},  # before the `tests` of another package that is installed
        )
        for name in TARGETS
    }
    said = {name: run.communicate()[0] for name, run in runs.items()}
    for name, run in runs.items():
        assert run.returncode == 0, said[name]
        assert "Done " in said[name]
