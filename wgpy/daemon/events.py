"""The event log, one JSON object a line, and the key log that lets Wireshark decrypt a capture.

Both are written from the event loop, so nothing here blocks: a line that cannot be written at once is dropped, and
counted.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import socket
import stat
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from wgpy.device.effects import Event, EventKind
from wgpy.errors import ControlError

log: Final = logging.getLogger("wgpy")

# To whoever reads the log, giving up on a handshake means that the peer is lost: 90 s without an answer.
_NAMES: Final = {EventKind.HANDSHAKE_ABANDONED: "peer_lost"}


def open_log(path: str) -> Log:
    """Open a log file for appending, and create it if it is missing; "-" is standard output.

    The file must be a regular file of ours that nobody else may read or write, and no symbolic link; else ControlError.
    """
    if path == "-":
        output = os.dup(1)  # a copy, because the daemon redirects descriptor 1 when it leaves the terminal
        opened = Log("standard output", partial(os.fstat, output), partial(_open_again, output))
    else:
        absolute = Path(path).absolute()
        opened = Log(path, partial(os.lstat, absolute), partial(_open_private, absolute))
    try:
        opened.open()
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from error
    return opened


def standard_error() -> Log:
    """Standard error, wherever it leads at the time, as a stream for a logging handler."""
    return Log("standard error", partial(os.fstat, 2), partial(_open_again, 2))


class Log:
    """A log file that never blocks: when a reader stalls, the disk is full or the file is gone, lines are dropped.

    `named` returns the status of the file that has the name now, and `opening` opens it: when the two differ from the
    open file, the log has been rotated, and is opened again.
    """

    def __init__(self, name: str, named: Callable[[], os.stat_result], opening: Callable[[], int]) -> None:
        self.dropped: int = 0  # since the last line that was written
        self._name = name
        self._named = named
        self._opening = opening
        self._file = -1
        self._status: os.stat_result | None = None
        self._rest = b""  # of a line that was partly written

    def write(self, line: str) -> None:
        """Write a line, which includes its newline, or count it as dropped."""
        if self.put(line):
            if dropped := self.dropped:
                self.dropped = 0
                log.warning("%s can be written to again; %d lines were dropped", self._name, dropped)
        else:
            self.dropped += 1
            if self.dropped == 1:
                log.warning("%s cannot be written to; lines are dropped until it can", self._name)

    def put(self, line: str) -> bool:
        """Write a line. Returns whether that worked."""
        try:
            self._follow()
            self._rest = self._rest[self._write(self._rest) :] if self._rest else b""
            if self._rest:
                return False
            data = line.encode(errors="backslashreplace")
            self._rest = data[self._write(data) :]
        except OSError:
            return False
        return True

    def flush(self) -> None:
        """Do nothing, because nothing is buffered; logging handlers call this."""

    def open(self) -> None:
        """Open the file that has the name now, in place of the old one. Raises OSError."""
        fresh = self._opening()
        if self._file >= 0:
            os.close(self._file)
        self._file, self._status, self._rest = fresh, os.fstat(fresh), b""

    def _follow(self) -> None:
        try:
            moved = self._status is None or not os.path.samestat(self._status, self._named())
        except FileNotFoundError:
            moved = True
        if moved:
            self.open()

    def _write(self, data: bytes) -> int:
        if self._status is not None and stat.S_ISSOCK(self._status.st_mode):  # systemd's journal
            with socket.socket(fileno=os.dup(self._file)) as connection:
                return connection.send(data, socket.MSG_DONTWAIT)
        if os.get_blocking(self._file) and not _takes_more(self._file):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(self._file, data)


def _takes_more(file: int) -> bool:
    poll = select.poll()  # select.select fails for descriptors of 1024 and more
    poll.register(file, select.POLLOUT)
    return bool(poll.poll(0))


def _open_again(fd: int) -> int:
    """Open what a descriptor leads to again, non-blocking.

    O_NONBLOCK belongs to the open file, which other processes may share: setting it there would make their writes fail.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    if stat.S_ISREG(os.fstat(fd).st_mode):  # never blocks, and a copy shares the offset with other writers
        return os.dup(fd)
    try:
        return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:  # a socket, or another user's pipe
        return os.dup(fd)


def _open_private(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        file = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):  # a FIFO without a reader; a symbolic link
            raise OSError(error.errno, _NO_FILE) from None
        raise
    status = os.fstat(file)
    wrong = ""
    if not stat.S_ISREG(status.st_mode):
        wrong = _NO_FILE
    elif status.st_uid != os.geteuid() or status.st_nlink != 1:
        wrong = "it belongs to another user, or has a second hard link; expected a file that only we use"
    elif status.st_mode & 0o077:
        wrong = f"other users may read or write it: chmod 600 {path}"
    if wrong:
        os.close(file)
        raise OSError(errno.EPERM, wrong)
    return file


_NO_FILE: Final = "expected a regular file, or - for standard output"


class EventLog:
    """Writes each event of an interface as a line of JSON."""

    def __init__(self, interface: str, file: Log) -> None:
        self._interface = interface
        self._file = file

    def __call__(self, event: Event, name: str) -> None:
        """Log an event; `name` is the peer's name in the configuration."""
        if self._file.dropped:
            self._file.put(self._line("events_dropped", count=self._file.dropped))
        self._file.write(
            self._line(
                _NAMES.get(event.kind, event.kind.value),
                public_key=event.public_key.base64(),
                name=name,
                endpoint=str(event.endpoint) if event.endpoint else None,
                **({"reason": event.reason.value} if event.reason else {}),
            )
        )

    def _line(self, event: str, **more: Any) -> str:
        now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": now, "interface": self._interface, "event": event, **more}) + "\n"


class KeyLog:
    """Writes the keys of each handshake in the format of Wireshark's "WireGuard key log file".

    Anyone who has this file can decrypt all traffic of the sessions in it.
    """

    def __init__(self, file: Log) -> None:
        self._file = file

    def __call__(self, label: str, key: bytes) -> None:
        self._file.write(f"{label} = {b64encode(key).decode()}\n")
