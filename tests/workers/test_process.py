"""A worker's process: where it finds its modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import wgpy

ROOT = str(Path(wgpy.__file__).parents[1])
SHOW = "from wgpy.workers.process import import_path; print(*import_path(), sep='\\n')"


def paths(directory: Path, *options: str) -> list[str]:
    """The import path of the workers of a process that was started in a directory, as by `python -m wgpy`."""
    (directory / "started.py").write_text(SHOW)
    command = (sys.executable, *options, "-m", "started")
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout.splitlines()


def test_a_worker_imports_nothing_from_the_directory_in_which_wgpy_was_started(tmp_path: Path) -> None:
    """Another user may write there, and plant a module before a worker is replaced."""
    found = paths(tmp_path)
    assert str(tmp_path) not in found
    assert found[-1] == ROOT
    assert any(path.endswith("lib-dynload") for path in found)


def test_a_worker_is_of_the_wgpy_that_control_is_even_if_that_lies_in_the_directory(tmp_path: Path) -> None:
    (tmp_path / "wgpy").symlink_to(Path(ROOT) / "wgpy")
    assert paths(tmp_path)[0] == str(tmp_path)
