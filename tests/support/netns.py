"""Network namespaces for tests: a test body in a fresh one, named ones for daemons, and cables between them."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import pytest

_CLONE_NEWNET: Final = 0x40000000
_FAILED, _SKIPPED = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def in_fresh_namespace(test: Callable[..., None]) -> Callable[..., None]:
    """Decorate a test: its body runs in a child process, in a network namespace of its own with `lo` up."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        def enter() -> None:
            _check(_libc.unshare(_CLONE_NEWNET))
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

        _run_in_child(enter, functools.partial(test, *args, **kwargs))

    return wrapper


class Namespace:
    """A named network namespace with `lo` up. Leaving its context deletes it and ends its processes."""

    def __init__(self) -> None:
        require_root()
        self.name = f"wgpy-{os.getpid()}-{next(_numbers)}"
        self._processes: list[subprocess.Popen[str]] = []
        _ip("netns", "add", self.name)
        _ip("-n", self.name, "link", "set", "lo", "up")

    def run(self, *command: str, check: bool = True, timeout: float = 30, **options: Any) -> str:
        """Run to completion and return what it printed, standard error included."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
        done = subprocess.run(self._inside(command), timeout=timeout, check=False, **options)
        if check:
            assert done.returncode == 0, f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}"
        return str(done.stdout)

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a process; `delete` ends it. It heeds SIGINT even if these tests run in the background."""
        heeding = ("env", "--default-signal=INT", *command)
        process: subprocess.Popen[str] = subprocess.Popen(self._inside(heeding), text=True, **options)
        self._processes.append(process)
        return process

    def call(self, body: Callable[[], None]) -> None:
        """Run a function inside, in a child process; what it raises fails the test here."""

        def enter() -> None:
            with open(f"/run/netns/{self.name}") as namespace:
                _check(_libc.setns(namespace.fileno(), _CLONE_NEWNET))

        _run_in_child(enter, body)

    def delete(self) -> None:
        for process in self._processes:
            _end(process)
        self._processes.clear()
        _ip("netns", "delete", self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.delete()

    def _inside(self, command: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]


def veth_pair(
    a: Namespace, b: Namespace, addresses: tuple[Sequence[str], Sequence[str]], *, name: str = "veth0", mtu: int = 1500
) -> None:
    """Join two namespaces by a cable called `name` on both sides, with addresses like `10.0.0.1/24`, up."""
    _ip("link", "add", name, "netns", a.name, "type", "veth", "peer", "name", name, "netns", b.name)
    for namespace, own in zip((a, b), addresses, strict=True):
        for address in own:
            nodad = ["nodad"] if ":" in address else []  # usable at once
            _ip("-n", namespace.name, "address", "add", address, "dev", name, *nodad)
        _ip("-n", namespace.name, "link", "set", name, "mtu", str(mtu), "up")


def require_root() -> None:
    """Skip the running test where namespaces cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")


def _run_in_child(enter: Callable[[], None], body: Callable[[], None]) -> None:
    require_root()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: the child only runs the body
        child = os.fork()
    if child == 0:
        os.close(reader)
        os._exit(_outcome(enter, body, writer))
    os.close(writer)
    with open(reader) as pipe:
        message = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == _SKIPPED:
        pytest.skip(message)
    if status:
        pytest.fail(message or f"the child exited with {status}", pytrace=False)


def _outcome(enter: Callable[[], None], body: Callable[[], None], writer: int) -> int:
    status, message = 0, ""
    try:
        enter()
        body()
    except pytest.skip.Exception as skipped:
        status, message = _SKIPPED, str(skipped)
    except BaseException:
        status, message = _FAILED, traceback.format_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    with open(writer, "w") as pipe:
        pipe.write(message)
    return status


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
