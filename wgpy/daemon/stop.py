"""Stopping a daemon from another process, as `wgpy down` does.

It imports little, so that a stop takes no longer than the daemon does.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from wgpy.daemon.files import RUN_DIRECTORY, open_own
from wgpy.daemon.uapi_client import is_served, serving_pid, socket_path
from wgpy.errors import ControlError

STOP_TIMEOUT: Final = 60  # seconds; hooks may be slow
SILENCE: Final = 2  # seconds before `stop` says what it is waiting for


def log_path(name: str) -> Path:
    """The file that gets the output of a daemon in the background."""
    return RUN_DIRECTORY / f"{name}.log"


def say(step: str) -> None:
    """Print a step as wg-quick does, and ignore it if nobody reads standard error any more."""
    with suppress(OSError):
        print(f"[#] {step}", file=sys.stderr, flush=True)


def stop(name: str) -> None:
    """Stop the daemon that serves `name`, and show the steps it undoes; or clean up after one that was killed.

    Raises ControlError if there is neither.
    """
    try:
        pid = serving_pid(name)
    except ControlError as error:
        if is_served(name):  # but we may not connect to it
            raise
        if stale := socket_path(name).exists():
            say(f"clean up after a killed daemon: {socket_path(name)}")
        from wgpy.daemon.leftovers import Leftovers

        if Leftovers(name).clear(say) or stale:
            for path in (socket_path(name), log_path(name)):
                path.unlink(missing_ok=True)
            return
        raise ControlError(
            f"{error}; {log_path(name)} says how it ended" if log_path(name).exists() else error
        ) from error
    process = os.pidfd_open(pid)
    try:
        with _log_from_now(name) as log_file:
            signal.pidfd_send_signal(process, signal.SIGTERM)
            ended = select.poll()  # select.select fails for descriptors of 1024 and more
            ended.register(process, select.POLLIN)
            if not ended.poll(SILENCE * 1000):
                say(f"wait for process {pid} to end, {STOP_TIMEOUT} s at most{_hindrance(pid)}")
                if not ended.poll((STOP_TIMEOUT - SILENCE) * 1000):
                    raise ControlError(
                        f"process {pid} has not ended {STOP_TIMEOUT} s after SIGTERM{_hindrance(pid)}; "
                        f"{log_path(name)} may say why"
                    )
            sys.stderr.write(log_file.read())
    finally:
        os.close(process)


def _hindrance(pid: int) -> str:
    """Why a process does not end although it was told to, if its state says so (proc_pid_stat(5)), and the remedy."""
    with suppress(OSError):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt":
            return f": it is suspended; resume it with `kill -CONT {pid}`"
    return ""


def _log_from_now(name: str) -> IO[str]:
    """The daemon's log file, open at its end, so that what is logged from now on can be read even if it is deleted."""
    try:
        log_file = open(open_own(log_path(name)), errors="replace")  # noqa: SIM115
    except OSError:
        return io.StringIO()
    log_file.seek(0, os.SEEK_END)
    return log_file
