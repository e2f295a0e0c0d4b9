"""A gateway's process and a client, while the disk is full, the database is locked, and the date jumps."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import wgpy
from tests.support.forked import forked_wgpy
from tests.support.netns import Namespace
from tests.support.peers import WGPY, fresh_name, wait_for
from wgpy.cli import main
from wgpy.gateway.store import sessions
from wgpy.gateway.store.database import Database
from wgpy.labs.netns import bring_up, join

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("troubles")]
GATEWAY = "10.99.0.1"  # in the pool
DAY = 86_400
JUMPING = """import time
from pathlib import Path
real, offset = time.time, Path(__file__).with_name("offset")
time.time = lambda: real() + float(offset.read_text())
"""


class Troubled:
    """A gateway with its database on a small disk, and the devices of alice and bob in a namespace each."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.disk, self._directory, self._log = directory / "disk", directory, directory / "log"
        self._key = directory / "key"
        self._places = ("--directory", str(self.disk / "gateway"), "--key", str(self._key))
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(self.disk)], check=True)
        stack.callback(subprocess.run, ["umount", str(self.disk)], check=True)
        self._files: dict[str, Path] = {}
        self._present: set[str] = set()
        (directory / "sitecustomize.py").write_text(JUMPING)
        self.jump_to(0)
        self._host = stack.enter_context(Namespace())
        self._clients = {name: stack.enter_context(Namespace()) for name in ("alice", "bob")}
        self.do(f"init --host 192.0.2.1 --pool 10.99.0.0/24 --interface {fresh_name()} --data-plane wgpy")
        self.do("rule add gateway 10.99.0.0/24 --everyone")
        for number, (name, client) in enumerate(self._clients.items()):
            join(self._host, f"to-{name}", client, "lan")
            bring_up(self._host, f"to-{name}", f"192.0.{2 + number}.1/24")
            bring_up(client, "lan", f"192.0.{2 + number}.2/24")
            client.run(
                "ip", "route", "replace", "192.0.2.1", *(["dev", "lan"] if number == 0 else ["via", "192.0.3.1"])
            )
            self._files[name] = directory / f"{fresh_name()}.conf"
            self.do(f"user add {name}")
            self.do(f"device add {name} --user {name} --output {self._files[name]}")
        self.process = self.run()
        stack.callback(self.stop)
        self.up("alice")

    def gateway(self, words: str, *, check: bool = True) -> str:
        """What a command says."""
        return self._host.run(forked_wgpy(), "gateway", *words.split(), *self._places, check=check)

    def do(self, words: str) -> None:
        """The same in this process, which is faster, while nothing is wrong."""
        assert main(["gateway", *words.split(), *self._places]) == 0

    def up(self, name: str) -> None:
        """A device comes, unless it is there."""
        if name not in self._present:
            self._clients[name].run(forked_wgpy(), "up", str(self._files[name]))
            self._present.add(name)

    def down(self, name: str) -> None:
        """A device goes away, if it is there, and its session with it."""
        if name in self._present:
            self._clients[name].run(forked_wgpy(), "down", str(self._files[name]))
            self._present.remove(name)
            self.do(f"session terminate {name}")
            assert wait_for(lambda: name not in self.sessions(), 30)

    def run(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": f"{self._directory}:{Path(wgpy.__file__).parents[1]}"}
        with self._log.open("a") as log:
            return self._host.popen(*WGPY, "gateway", "run", *self._places, stdout=log, stderr=log, env=environment)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def jump_to(self, offset: float) -> None:
        """The gateway's date is so many seconds ahead of the right one from now on."""
        fresh = self._directory / "offset.new"
        fresh.write_text(str(offset))
        fresh.rename(self._directory / "offset")

    def reaches(self, name: str) -> bool:
        """Whether a device reaches the gateway now."""
        return "1 received" in self._clients[name].run("ping", "-c1", "-W1", GATEWAY, check=False)

    def sessions(self) -> dict[str, str]:
        """The id of the session of each device that has one."""
        with closing(Database(self.disk / "gateway/gateway.db", self._key)) as opened, opened.read() as connection:
            return {row["device"]: row["id"] for row in sessions.under_way(connection)}

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.gateway("status --json", check=False))
        return found

    def table(self) -> str:
        return self._host.run("nft", "list", "ruleset")

    def log(self) -> list[str]:
        return self._log.read_text().splitlines()

    def fill(self) -> None:
        with suppress(OSError), (self.disk / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    def make_room(self) -> None:
        (self.disk / "filler").unlink()


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Troubled]:
    with ExitStack() as stack:
        yield Troubled(stack, tmp_path_factory.mktemp("troubled"))


def test_on_a_full_disk_sessions_go_on_and_none_begins_until_there_is_room(troubled: Troubled) -> None:
    assert wait_for(lambda: troubled.reaches("alice"), 30)
    troubled.down("bob")
    before = troubled.sessions()
    troubled.fill()
    troubled.up("bob")
    assert wait_for(lambda: "make room on the disk" in troubled.status()["why_not"], 30)
    assert troubled.reaches("alice")
    assert not troubled.reaches("bob")
    assert [line for line in troubled.log() if "make room" in line] == troubled.log()[-1:]
    (said,) = troubled.gateway("user add carol", check=False).splitlines()
    assert said.endswith("make room on the disk; nothing was changed")
    troubled.make_room()
    assert wait_for(lambda: troubled.reaches("bob"), 60)
    assert troubled.reaches("alice")
    assert troubled.sessions()["alice"] == before["alice"]
    assert troubled.status()["healthy"]


def test_while_another_process_holds_the_database_sessions_go_on_and_none_begins(troubled: Troubled) -> None:
    assert wait_for(lambda: troubled.reaches("alice"), 30)
    troubled.down("bob")
    with closing(sqlite3.connect(troubled.disk / "gateway/gateway.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        troubled.up("bob")
        assert wait_for(lambda: troubled.reaches("bob") or "another process holds it" in "".join(troubled.log()), 60)
        assert troubled.reaches("alice")
        assert not troubled.reaches("bob")
        assert "another process holds it" in troubled.status()["why_not"]
        (said,) = troubled.gateway("user add carol", check=False).splitlines()
        assert "another process holds it: `fuser -v` on the file shows which; nothing was changed" in said
        other.execute("ROLLBACK")
    assert wait_for(lambda: troubled.reaches("bob"), 60)
    assert wait_for(lambda: troubled.log()[-1:] == ["WARNING: all is well again"])


def test_a_date_that_jumps_ends_no_session_and_gives_nobody_access_back(troubled: Troubled) -> None:
    troubled.up("bob")
    assert wait_for(lambda: troubled.reaches("alice") and troubled.reaches("bob"), 60)
    before = troubled.sessions()
    troubled.do(f"user set bob --expires {date.today()}")
    troubled.jump_to(2 * DAY)
    assert wait_for(lambda: troubled.sessions() == {"alice": before["alice"]}, 30)
    assert troubled.reaches("alice")
    assert not troubled.reaches("bob")
    troubled.jump_to(-2 * DAY)
    troubled.do("rule add another 10.123.0.0/16 --everyone")
    assert wait_for(lambda: "10.123.0.0" in troubled.table(), 30)
    assert troubled.reaches("alice")
    assert not troubled.reaches("bob")
    assert troubled.sessions() == {"alice": before["alice"]}
    assert troubled.status()["healthy"]
