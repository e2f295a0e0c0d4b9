"""The priority that a process which carries packets takes: its own, and its session's where Linux groups by session."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wgpy.system.priority import NICE

pytestmark = pytest.mark.root

PROGRAM = """\
import asyncio, os, subprocess
from pathlib import Path
from wgpy.system.priority import raise_priority

async def main():
    await raise_priority()
    group = Path("/proc/self/autogroup")
    print(os.getpriority(os.PRIO_PROCESS, 0), group.read_text().split()[-1] if group.exists() else None, flush=True)
    await asyncio.to_thread(subprocess.run, "nice")

{before}
asyncio.run(main())
"""


def priorities(before: str = "", *, begins_session: bool = True) -> list[str]:
    """Of a process, of its session, and of a program that it starts in another thread."""
    command: tuple[str, ...] = (sys.executable, "-c", PROGRAM.format(before=before))
    if not begins_session:
        command = ("sh", "-c", '"$@"; true', "sh", *command)
    return subprocess.run(command, check=True, capture_output=True, text=True, start_new_session=True).stdout.split()


def of_session(nice: int) -> str:
    return str(nice if Path("/proc/self/autogroup").exists() else None)


def test_a_process_and_its_session_get_a_higher_priority_and_programs_do_not_inherit_it() -> None:
    assert priorities() == [str(NICE), of_session(NICE), "0"]


def test_a_session_that_somebody_else_began_keeps_its_priority() -> None:
    """A shell's, for example, in which the daemon runs in the foreground."""
    assert priorities(begins_session=False) == [str(NICE), of_session(0), "0"]


def test_a_nice_value_that_somebody_has_set_is_left_alone() -> None:
    assert priorities("os.nice(7)") == ["7", of_session(0), "7"]


def test_where_the_system_does_not_permit_it_nothing_happens() -> None:
    assert priorities("os.setuid(65534)") == ["0", of_session(0), "0"]
