"""However a test run ends, what it started ends with it.

    python -m tests.support.endings PROGRAM ARGUMENT...

runs a program whose daemons, virtual machines and namespaces end when it does, even if it, or whoever started it, is
killed: as root, where that is permitted, it runs in a PID namespace of its own (pid_namespaces(7)), all of which the
kernel ends with its first process. Namespaces that only their mounts keep go with the mount namespace
(`tests.support.apart`).

A run that is not killed clears up by itself: SIGTERM and SIGHUP are like Ctrl-C, which raises.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Final

from wgpy.system.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, die_with_parent, mount, unshare

_OTHERS = (signal.SIGTERM, signal.SIGHUP)
_ALL = (signal.SIGINT, *_OTHERS)
_CLONE_NEWPID: Final = 0x20000000


def heed_signals() -> None:
    """Have the signals that end a program raise KeyboardInterrupt, so that every `finally` and fixture has its turn."""
    for number in _OTHERS:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)


def ignore_signals() -> None:
    """From now on nothing interrupts what clears away."""
    for number in _ALL:
        signal.signal(number, signal.SIG_IGN)


def main(command: list[str]) -> int:
    """Run the program and return its exit status."""
    die_with_parent(signal.SIGKILL)
    if not _is_permitted():
        os.execvp(command[0], command)
    unshare(_CLONE_NEWPID)
    # Until `_wait` passes them on: process 1 of a namespace loses a signal that it neither handles nor blocks.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    first = os.fork()
    if first == 0:
        os._exit(_run_as_first_process(command))
    return _wait(first)


def _is_permitted() -> bool:
    """Whether we may have a PID namespace with a /proc of its own, which root in a container may not."""
    probe = ("unshare", "--pid", "--fork", "--mount-proc", "true")
    return os.geteuid() == 0 and subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _run_as_first_process(command: list[str]) -> int:
    """Run the program from process 1 of the namespace, which becomes the parent of every daemon."""
    die_with_parent(signal.SIGKILL)
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")  # one that knows the processes by their numbers in this namespace
    program = os.fork()
    if program == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)
        os.execvp(command[0], command)
    return _wait(program)


def _wait(child: int) -> int:
    """Pass on the signals that end a program, until the child has ended; its status as a shell puts it."""
    for number in _ALL:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: _pass_on(number, child))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _pass_on(number: int, child: int) -> None:
    if number != signal.SIGINT:  # which a terminal sends to all of them
        os.kill(child, number)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
