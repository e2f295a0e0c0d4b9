"""The service is killed before each change of the table and the database, with a kernel's table and a real database.

Whenever that is, what is open in the kernel is a session in the database, and the next process makes both the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from tests.gateway.service.world import KEY, PHONE, World
from tests.support.netns import in_fresh_namespace
from wgpy.daemon import firewall
from wgpy.gateway.enforcement import nft
from wgpy.gateway.enforcement.nft import Firewall
from wgpy.gateway.policy.destinations import Address, Destination
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.service.gateway import Gateway
from wgpy.gateway.service.run import boottime
from wgpy.gateway.store import devices, endpoint, groups, rules, sessions, state, users
from wgpy.gateway.store.database import Database
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
LAPTOP = ip_address("10.99.0.3")
LAPTOP_KEY = PublicKey(bytes([2]) * 32)


def make(directory: Path) -> None:
    """A database with Alice's phone, which has a session, and Bob's laptop, which has none yet."""
    database = Database.create(directory / "gateway.db", directory / "key")
    with database.change("root") as change:
        pools = (ip_network("10.99.0.0/24"), ip_network("fd00:99::/64"))
        endpoint.add(change, Endpoint(host="192.0.2.1", pools=pools), PrivateKey.generate())
        groups.add(change, Group(name="staff"))
        for name, device, key in (("alice", "phone", KEY), ("bob", "laptop", LAPTOP_KEY)):
            users.add(change, User(name=name, groups=frozenset({"staff"})))
            devices.add(change, device, name, key, PresharedKey(bytes(32)))
    database.close()


def gateway(database: Database) -> Gateway:
    world = World()
    table = Firewall("wg0", 51820)
    return Gateway(database, table, world, clock=boottime, wall=time.time, write=lambda entry: None)


def live(database: Database) -> None:
    """What the service does in its life: sessions begin and end, rules and users change."""
    service = gateway(database)
    service.start()
    service.notice({PHONE[0], LAPTOP})
    service.tick()
    with database.change("root") as change:
        rules.add(change, Rule(name="all", destination=Destination.parse("10.0.0.0/8"), everyone=True))
    service.tick()
    with database.change("root") as change:
        sessions.terminate(change, "laptop")
    service.tick()
    with database.change("root") as change:
        users.replace(change, replace(users.find(change.connection, "alice"), enabled=False))
    service.tick()


class Countdown:
    """Kills this process at the nth point: before each call of nft that changes the table, and before each commit.

    From one point to the next, only what the first is about changes anything that outlives the process: so they meet
    every state that a process which is killed can leave behind.
    """

    def __init__(self, points: int) -> None:
        self._left = points

    def pass_by(self) -> None:
        """One more point."""
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def watch(self) -> None:
        """Count the points of this process."""

        def run(command: list[str], *rest: Any) -> str:
            if "list" not in command:
                self.pass_by()
            return firewall.run(command, *rest)

        def committing(_: Connection) -> None:
            self.pass_by()

        nft.__dict__["run"] = run
        event.listen(Engine, "commit", committing)  # before it is done


def killed_at(point: int, directory: Path) -> bool:
    """Live in a process that is killed at a point. Returns whether it came so far."""
    child = os.fork()
    if child == 0:
        Countdown(point).watch()
        live(Database(directory / "gateway.db", directory / "key"))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"point {point}: exit status {status}"
    return status != 0


def opened() -> set[Address]:
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return {*Firewall("wg0", 51820).sent()} if listed else set()


def under_way(database: Database) -> dict[str, tuple[Address, ...]]:
    policy, _ = state.read(database)
    with database.read() as connection:
        rows = sessions.under_way(connection)
    return {row["device"]: policy.devices[row["device"]].addresses for row in rows}


@in_fresh_namespace
def test_whenever_it_is_killed_nothing_is_open_that_is_not_written_down_and_the_next_one_goes_on() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        template, directory = Path(temporary) / "template", Path(temporary) / "run"
        template.mkdir()
        make(template)
        points, seen = 0, set()
        while True:
            subprocess.run(["nft", "flush", "ruleset"], check=True)
            shutil.copytree(template, directory)
            was_killed = killed_at(points, directory)
            database = Database(directory / "gateway.db", directory / "key")
            written = {address for addresses in under_way(database).values() for address in addresses}
            present = opened()
            assert present <= written, f"point {points}: {present - written} is open, and in no session"
            service = gateway(database)
            service.start()
            service.tick()
            kept = {address for addresses in under_way(database).values() for address in addresses}
            assert opened() == kept, f"point {points}: after a restart"
            assert kept <= present, f"point {points}: a restart opened something"
            policy, _ = state.read(database)
            enabled = {device.name for device in policy.devices.values() if policy.users[device.user].enabled}
            assert under_way(database).keys() <= enabled, f"point {points}: who is disabled has a session"
            seen.add(tuple(sorted(under_way(database))))
            database.close()
            shutil.rmtree(directory)
            if not was_killed:
                break
            points += 1
        assert points > 10
        assert seen == {(), ("phone",), ("laptop", "phone")}, "of each state of the sessions some point has told"
