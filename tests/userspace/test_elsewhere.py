"""What Linux alone has is not needed to import wgpy and to run the stack; other systems themselves are not here."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_the_stack_works_without_linuxs_modules(platform: str) -> None:
    command = [sys.executable, "-m", "tests.userspace.elsewhere", platform]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")
