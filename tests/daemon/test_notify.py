"""What the daemon tells systemd, read from a real socket as systemd does."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Namespace
from tests.support.peers import WGPY, fresh_name
from wgpy.daemon.notify import Notifier
from wgpy.keys import PrivateKey


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket, and its name for NOTIFY_SOCKET."""
    name = f"@wgpy-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0"))
        sock.settimeout(60)
        yield sock, name


def test_a_state_is_one_datagram(listener: tuple[socket.socket, str]) -> None:
    sock, name = listener
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.say("READY=1")
    notifier.say("STOPPING=1")
    assert [sock.recv(100), sock.recv(100)] == [b"READY=1", b"STOPPING=1"]


@pytest.mark.parametrize("name", [None, "", "relative", "/no/such/socket", "@nobody-listens-here", "vsock:2:1"])
def test_without_a_listener_nothing_happens(name: str | None) -> None:
    Notifier({} if name is None else {"NOTIFY_SOCKET": name}).say("READY=1")


def test_a_listener_that_does_not_read_does_not_block_us(listener: tuple[socket.socket, str]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": listener[1]})
    for _ in range(10_000):
        notifier.say("WATCHDOG=1")


def test_the_request_is_not_passed_on_to_hooks() -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Notifier(environment)
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("interval", "pid", "seconds"),
    [
        ("30000000", None, 30.0),
        pytest.param("500000", str(os.getpid()), 0.5, id="ours"),
        ("30000000", "1", 0.0),  # it asks another process
        ("x", None, 0.0),
        ("", None, 0.0),
        ("0", None, 0.0),
    ],
)
def test_the_watchdog_counts_only_for_the_process_it_names(interval: str, pid: str | None, seconds: float) -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": interval} | ({"WATCHDOG_PID": pid} if pid else {})
    assert Notifier(environment).watchdog_interval == seconds


def test_the_watchdog_is_fed_twice_per_interval(
    listener: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, name = listener
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"})
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(notifier.keep_alive())
    assert slept == [1.5, 1.5, 1.5]
    assert [sock.recv(100) for _ in slept] == [b"WATCHDOG=1"] * 3


def test_a_daemon_that_is_not_watched_sends_nothing() -> None:
    asyncio.run(asyncio.wait_for(Notifier({"NOTIFY_SOCKET": "/x"}).keep_alive(), 5))
    asyncio.run(asyncio.wait_for(Notifier({"WATCHDOG_USEC": "1000000"}).keep_alive(), 5))


@pytest.mark.root
def test_the_daemon_reports_ready_when_all_is_done_and_feeds_the_watchdog_until_it_stops(tmp_path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # an abstract one is of one network namespace
    sock.bind(str(tmp_path / "notify"))
    sock.settimeout(60)
    name, witness = fresh_name(), tmp_path / "witness"
    config = tmp_path / f"{name}.conf"
    config.touch(mode=0o600)
    config.write_text(
        f"[Interface]\nPrivateKey = {PrivateKey.generate().base64()}\nAddress = 10.9.0.1/24\n"
        f"PostUp = echo up-$NOTIFY_SOCKET >> {witness}\nPreDown = echo down >> {witness}\n"
    )
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with sock, Namespace() as namespace:
        process = namespace.popen(*WGPY, "run", str(config), env=environment)
        said: list[bytes] = []
        while b"READY=1" not in said:
            said.append(sock.recv(100))
        assert witness.read_text() == "up-\n"
        for _ in range(3):
            assert sock.recv(100) == b"WATCHDOG=1"
        process.terminate()
        while said[-1] != b"STOPPING=1":
            said.append(sock.recv(100))
        assert process.wait(60) == 0
        assert witness.read_text() == "up-\ndown\n"
    assert set(said) == {b"READY=1", b"WATCHDOG=1", b"STOPPING=1"}
