"""A machine under systemd: this system booted a second time in a container (systemd-nspawn), with wgpy installed.

Only what a test asks for is started in it, and what it changes is forgotten.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final, Self

import pytest

from tests.support.kernel_peer import unpacked
from tests.support.netns import require_root
from tests.support.nobody import leave_chroot
from tests.support.peers import wait_for

ROOT: Final = Path(__file__).parents[2]
RESOLVED: Final = (
    "systemd-resolved"  # unpacked, not installed: installed, it would take over this machine's resolv.conf
)
TARGET: Final = "tests.target"
_PACKAGES: Final = "/opt/wgpy-tests"


class Machine:
    """Booted while its context lasts."""

    def __init__(self, directory: Path) -> None:
        require_root()
        if not shutil.which("systemd-nspawn"):
            pytest.skip("needs systemd-nspawn")
        self._log = directory / "log"
        self._lay_out(directory / "files")
        places = {ROOT / "wgpy": "wgpy", Path(sysconfig.get_path("purelib")): "packages"}
        binds = [f"--bind-ro={source}:{_PACKAGES}/{name}" for source, name in places.items()]
        command = (str(ROOT / "tests/support/machine.sh"), str(directory), *binds, f"systemd.unit={TARGET}")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=leave_chroot
            )
        try:
            assert wait_for(self._is_running, 60), f"it does not boot:\n{self._log.read_text()}"
        except BaseException:
            self.close()
            raise

    def _lay_out(self, files: Path) -> None:
        resolved = unpacked(RESOLVED)
        for name in ("etc", "usr"):
            shutil.copytree(resolved / name, files / name, symlinks=True)
        if (resolved / "lib").exists():  # of Debian 12, to whose packages /lib is not yet a link
            shutil.copytree(resolved / "lib", files / "usr/lib", dirs_exist_ok=True)
        units = files / "usr/local/lib/systemd/system"
        shutil.copytree(ROOT / "systemd", units)
        (units / TARGET).write_text("[Unit]\nRequires=dbus.service systemd-resolved.service\n")
        program = files / "usr/local/bin/wgpy"
        program.parent.mkdir()
        path, python = f"{_PACKAGES}:{_PACKAGES}/packages", Path(sys.executable).resolve()
        program.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {python} -m wgpy "$@"\n')
        program.chmod(0o755)

    def _is_running(self) -> bool:
        assert self._process.poll() is None, f"it ended:\n{self._log.read_text()}"
        return self._leader() != "" and self.run("systemctl", "is-active", TARGET, check=False) == "active\n"

    def _leader(self) -> str:
        """The process that is 1 in there."""
        return _child(_child(str(self._process.pid)))

    def run(self, *command: str, check: bool = True, text: str = "", timeout: float = 60) -> str:
        """Run to completion and return what it printed, standard error included."""
        inside = ("nsenter", f"--target={self._leader()}", "--all", *command)
        done = subprocess.run(
            inside,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert done.returncode == 0 or not check, f"{shlex.join(command)} exited with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """A file that only root may read."""
        self.run("sh", "-c", f"umask 077; mkdir -p $(dirname {path}); cat >{path}", text=text)

    def properties(self, unit: str, *names: str) -> list[str]:
        """In the order asked for, which is not systemd's."""
        return [self.run("systemctl", "show", "--value", f"--property={name}", unit).strip() for name in names]

    def close(self) -> None:
        if leader := self._leader():
            os.kill(int(leader), signal.SIGKILL)
        self._process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _child(parent: str) -> str:
    """The first child of a process; nothing if there is none."""
    try:
        return Path(f"/proc/{parent}/task/{parent}/children").read_text().partition(" ")[0]
    except OSError:
        return ""
