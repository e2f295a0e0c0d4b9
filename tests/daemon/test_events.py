"""Event and key logs: what they refuse to write to, and what they do when nobody reads."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import resource
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.support.nobody import NOBODY
from wgpy.daemon.events import EventLog, KeyLog, Log, open_log
from wgpy.device.effects import Event, EventKind
from wgpy.endpoint import Endpoint
from wgpy.errors import ControlError
from wgpy.keys import PublicKey

PEER = PublicKey(b"p" * 32)


def moved(port: int, peer: PublicKey = PEER) -> Event:
    return Event(EventKind.ENDPOINT_MOVED, peer, Endpoint("192.0.2.1", port))


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["link", "fifo", "read fifo", "device", "readable", "two names"])
def test_events_are_written_only_to_a_file_that_nobody_else_can_change(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "log", tmp_path / "other"
    other.touch(mode=0o600)
    reader = -1
    match kind:
        case "link":
            path.symlink_to(other)
        case "fifo" | "read fifo":
            os.mkfifo(path, 0o600)
            reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if kind == "read fifo" else -1
        case "device":
            path = Path("/dev/full")
        case "readable":
            path.touch(mode=0o644)
            path.chmod(0o644)
        case "two names":
            path.hardlink_to(other)
    with pytest.raises(ControlError, match=f"{path}: .*(expected|chmod 600)"):
        open_log(str(path))
    assert other.read_text() == ""
    if reader >= 0:
        os.close(reader)


@pytest.mark.root
def test_another_users_file_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch(mode=0o600)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(ControlError, match="belongs to another user"):
        open_log(str(path))


@pytest.mark.parametrize("opened", ["open_log('-')", "standard_error()"])
def test_a_reader_that_stalls_does_not_block_the_daemon(tmp_path: Path, opened: str) -> None:
    """A pipe that is never read takes 64 kB; the rest is dropped and counted."""
    told = tmp_path / "told"
    program = (
        f"import logging; from pathlib import Path; from wgpy.daemon.events import *; file = {opened}\n"
        "logging.basicConfig(stream=standard_error())\n"
        "for _ in range(20_000): file.write('a line\\n')\n"
        f"Path({str(told)!r}).write_text(str(file.dropped))"
    )
    readable, writable = os.pipe()
    streams = {"stdout": writable, "stderr": writable}
    subprocess.run([sys.executable, "-c", program], timeout=30, check=True, **streams)  # type: ignore[call-overload]
    os.close(writable)
    with open(readable) as pipe:
        lines = [line for line in pipe.read().splitlines() if "cannot be written to" not in line]
    assert set(lines) == {"a line"}
    assert len(lines) + int(told.read_text()) == 20_000


@pytest.mark.parametrize("opened", ["open_log('-')", "standard_error()"])
def test_events_and_other_output_to_one_file_do_not_overwrite_each_other(tmp_path: Path, opened: str) -> None:
    """The shell's `2> log` does not open the file for appending."""
    program = f"import os; from wgpy.daemon.events import *; log = {opened}\nfor fd in (1, 2) * 3:\n"
    program += " log.write('a line\\n'); os.write(fd, b'printed\\n')"
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, "-c", program], stdout=log, stderr=log, timeout=30, check=True)
    assert (tmp_path / "log").read_text() == "a line\nprinted\n" * 6


def test_the_journals_socket_takes_events_without_blocking(tmp_path: Path) -> None:
    """Standard output under systemd is a stream socket, which cannot be opened again by a path."""
    ours, theirs = socket.socketpair()
    log = Log("a socket", partial(os.fstat, theirs.fileno()), partial(os.dup, theirs.fileno()))
    for _ in range(100_000):
        log.write("a line\n")
    assert log.dropped > 0
    assert ours.recv(14) == b"a line\na line\n"
    ours.close()
    theirs.close()


def test_a_pipe_of_any_number_takes_events_without_blocking() -> None:
    """A daemon with many sockets has descriptors of 1024 and more, which select(2) cannot ask about."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2048)), hard))
    reader, writer = os.pipe()
    high = fcntl.fcntl(writer, fcntl.F_DUPFD_CLOEXEC, 1024)
    try:
        log = Log("a pipe", partial(os.fstat, high), lambda: fcntl.fcntl(high, fcntl.F_DUPFD_CLOEXEC, 1025))
        for _ in range(20_000):
            log.write("a line\n")
        assert log.dropped > 0
        assert os.read(reader, 14) == b"a line\na line\n"
        os.close(log._file)
    finally:
        for descriptor in (reader, writer, high):
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_is_reopened_after_it_was_rotated_or_removed(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    log = KeyLog(open_log(str(path)))
    log("one", b"1")
    path.rename(tmp_path / "keys.1")
    log("two", b"2")
    path.unlink()
    log("three", b"3")
    assert (tmp_path / "keys.1").read_text() == "one = MQ==\n"
    assert path.read_text() == "three = Mw==\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_says_how_many_events_were_dropped_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    path = directory / "events"
    log = EventLog("wg0", open_log(str(path)))
    completed = Event(EventKind.HANDSHAKE_COMPLETED, PEER, None)
    with caplog.at_level(logging.WARNING, "wgpy"):
        log(completed, "")
        directory.rename(tmp_path / "gone")
        for _ in range(3):
            log(completed, "")
        directory.mkdir()
        path.symlink_to(tmp_path / "elsewhere")  # which is not followed when it is opened again, either
        log(completed, "")
        path.unlink()
        log(completed, "")
    lines = read(path)
    assert [line["event"] for line in lines] == ["events_dropped", "handshake_completed"]
    assert lines[0]["count"] == 4
    assert not (tmp_path / "elsewhere").exists()
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"{path} cannot be written to; lines are dropped until it can",
        f"{path} can be written to again; 4 lines were dropped",
    ]


def test_a_full_disk_leaves_only_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(str(path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        for line in ("first\n", "second\n", "third\n"):
            log.write(line)
        assert (path.read_text(), log.dropped) == ("first\nseco", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write("fourth\n")
    assert path.read_text() == "first\nsecond\nfourth\n"
