"""Named network namespaces, what runs in them, and cables between them. Needs root and iproute2."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from wgpy.errors import LabError

RESOLVER: Final = Path("/etc/netns")  # `ip netns exec NAME` shows the files below NAME in /etc: ip-netns(8)
_PATIENCE: Final = 5.0  # seconds that processes have to end after SIGTERM
_numbers = itertools.count()


class Namespace:
    """A network namespace with `lo` up. Leaving its context ends every process in it, and deletes it."""

    def __init__(self, name: str = "") -> None:
        self.name: str = name or f"wgpy-{os.getpid()}-{next(_numbers)}"
        self._processes: list[subprocess.Popen[str]] = []
        try:
            ip("netns", "add", self.name)
            ip("-n", self.name, "link", "set", "lo", "up")
        except BaseException:
            delete(self.name)
            raise

    def run(self, *command: str, check: bool = True, timeout: float = 30, **options: Any) -> str:
        """Run a command to its end and return what it printed, with standard error. Raises LabError if it fails."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
        done = subprocess.run(self._inside(command), timeout=timeout, check=False, **options)
        if check and done.returncode != 0:
            raise LabError(f"{self.name}: {' '.join(command)} exited with {done.returncode}:\n{done.stdout}")
        return str(done.stdout)

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a process, which `delete` ends. It does not ignore SIGINT, even if we run in the background."""
        heeding = ("env", "--default-signal=INT", *command)
        process: subprocess.Popen[str] = subprocess.Popen(self._inside(heeding), text=True, **options)
        self._processes.append(process)
        return process

    def delete(self) -> None:
        delete(self.name)
        for process in self._processes:
            with process:  # closes its pipes, and waits
                process.kill()  # in case it had not entered the namespace yet
        self._processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.delete()

    def _inside(self, command: Sequence[str]) -> list[str]:
        if command[0] == "ip":  # enters by itself, in half the time
            return ["ip", "-n", self.name, *command[1:]]
        return ["ip", "netns", "exec", self.name, *command]


def veth_pair(
    a: Namespace, b: Namespace, addresses: tuple[Sequence[str], Sequence[str]], *, name: str = "veth0", mtu: int = 1500
) -> None:
    """Join two namespaces by a cable called `name` on both sides, with addresses like `10.0.0.1/24`, up."""
    join(a, name, b, name)
    for namespace, own in zip((a, b), addresses, strict=True):
        bring_up(namespace, name, *own, mtu=mtu)


def join(a: Namespace, a_name: str, b: Namespace, b_name: str) -> None:
    """Lay a cable: an interface in each namespace, without addresses, down."""
    ip("link", "add", a_name, "netns", a.name, "type", "veth", "peer", "name", b_name, "netns", b.name)


def bring_up(namespace: Namespace, name: str, *addresses: str, mtu: int = 1500) -> None:
    """Give an interface its addresses, usable at once, and set it up."""
    steps = [f"address add {each} dev {name}{' nodad' if ':' in each else ''}" for each in addresses]
    ip("-n", namespace.name, "-batch", "-", given="\n".join([*steps, f"link set {name} mtu {mtu} up"]))


def delete(*names: str) -> None:
    """End every process in these namespaces, by SIGTERM and then by SIGKILL, and delete those that are there."""
    end = time.monotonic() + _PATIENCE
    told: set[int] = set()
    while pids := {pid for name in names for pid in _processes(name)}:
        late = time.monotonic() > end
        for pid in pids if late else pids - told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        told |= pids
        time.sleep(0.02)
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(RESOLVER / name, ignore_errors=True)
    with suppress(OSError):
        RESOLVER.rmdir()  # if we made it and nothing else is in it


def ip(*arguments: str, given: str = "") -> None:
    """Run `ip` with a text on its standard input. Raises LabError with what it said."""
    done = subprocess.run(["ip", *arguments], input=given, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _processes(name: str) -> list[int]:
    done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
    return [int(pid) for pid in done.stdout.split()]
