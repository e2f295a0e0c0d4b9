"""What a test run starts ends with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.peers import wait_for

CONTAINED = (sys.executable, "-m", "tests.support.endings")

# A test as the suite runs it: in a process of pytest-xdist, with a namespace, a daemon and an interface that stay.
TESTS = """\
import subprocess, time
from pathlib import Path
from tests.support.netns import Namespace
from tests.support.peers import WGPY

def test_that_is_killed(tmp_path):
    with Namespace() as namespace:
        namespace.run(*WGPY, "gone0")
        namespace.popen("sleep", "600")
        subprocess.run(["setsid", "-f", "sleep", "600"], check=True)
        Path({ready!r}).touch()
        time.sleep(600)
"""


class Run:
    """A program whose processes, and those that they start, are known by a variable of their environment."""

    def __init__(self, *command: str) -> None:
        mark = uuid4().hex
        self._mark = f"WGPY_TEST_RUN={mark}".encode()
        environment = {**os.environ, "WGPY_TEST_RUN": mark}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def processes(self) -> Iterator[int]:
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                if self._mark in (directory / "environ").read_bytes().split(b"\0"):
                    yield int(directory.name)

    def names(self) -> list[str]:
        found = []
        for number in self.processes():
            with suppress(OSError):
                found.append(Path(f"/proc/{number}/comm").read_text().strip())
        return found


@pytest.mark.root
@pytest.mark.parametrize("killed", ["it", "who started it"])
def test_a_run_that_is_killed_leaves_nothing(tmp_path: Path, killed: str) -> None:
    ready = tmp_path / "ready"
    (tmp_path / "test_killed.py").write_text(TESTS.format(ready=str(ready)))
    apart = f"popen//python={sys.executable} -m tests.support.apart {sys.executable}"
    pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--dist=load", f"--tx={apart}")
    command = (*CONTAINED, *pytest_, f"--basetemp={tmp_path}/tmp", str(tmp_path / "test_killed.py"))
    run = Run(*command if killed == "it" else ("sh", "-c", '"$@" & wait', "sh", *command))
    try:
        assert wait_for(ready.exists, 60), run.names()
        assert wait_for(lambda: run.names().count("sleep") == 2), run.names()  # until then they have another's name
    finally:
        run.process.kill()
        run.process.communicate()
    assert wait_for(lambda: not run.names()), run.names()


@pytest.mark.parametrize(("program", "status"), [("exit 7", 7), ("kill -KILL $$", 128 + signal.SIGKILL)])
def test_the_status_is_that_of_the_program(program: str, status: int) -> None:
    assert subprocess.run((*CONTAINED, "sh", "-c", program), check=False).returncode in (status, status - 256)


@pytest.mark.root
def test_a_run_that_is_told_to_end_clears_up_first() -> None:
    script = 'trap "echo cleared; exit 3" TERM; echo ready; while :; do sleep 0.05; done'
    with subprocess.Popen((*CONTAINED, "sh", "-c", script), stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        run.terminate()
        assert run.stdout.read() == "cleared\n"
        assert run.wait() == 3


@pytest.mark.root
def test_processes_have_numbers_of_their_own_and_orphans_are_reaped() -> None:
    script = "(true &); sleep 0.2; echo $(ls -d /proc/[0-9]*) $$"
    said = subprocess.run((*CONTAINED, "sh", "-c", script), capture_output=True, text=True, check=True).stdout.split()
    assert len(said) == 4, said  # the first, the shell and ls
    assert {"/proc/1", f"/proc/{said[-1]}"} < set(said)
