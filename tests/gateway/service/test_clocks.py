"""Gateways on hosts whose dates differ: sessions begin and end by the date of the database's server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from tests.gateway.service.test_nodes import Always
from tests.gateway.service.world import HOUR, PHONE, World, last, send, set_endpoint
from wgpy.gateway.service.gateway import BEAT, GRACE, Gateway
from wgpy.gateway.store import devices, nodes, postgresql, users
from wgpy.gateway.store.database import Database

pytestmark = [pytest.mark.peer, pytest.mark.parametrize("both_kinds", ["postgresql"], indirect=True)]

BOUND = 1.0  # seconds by which a session may be shorter or longer
SKEWS = [30.0, -30.0, 600.0, -600.0]


class Hosts:
    """The hosts a and b, whose dates differ, and a server with a date of its own. One host acts at a time."""

    def __init__(self, phone: Database, place: str, key: Path, skew: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worlds = {"a": World(), "b": World()}
        self.worlds["b"].now += 90_000.0
        self.worlds["b"].date += skew
        self.here, self._phone = self.worlds["a"], phone
        self.date = self.here.date
        with phone.change("root") as change:
            change.connection.execute(text(f"CREATE TABLE test_clock AS SELECT {self.date}::float8 AS now"))
        host: Any = SimpleNamespace(
            time=lambda: self.here.date, clock_gettime=lambda _: self.here.now, CLOCK_BOOTTIME=None
        )
        monkeypatch.setattr(postgresql, "time", host)
        for name in ("_BEGUN", "_EXISTS"):
            query = str(getattr(postgresql, name)).replace(postgresql._NOW, "(SELECT now FROM test_clock) AS now")
            monkeypatch.setattr(postgresql, name, text(query))
        self.databases: dict[str, Database] = {}
        self.gateways: dict[str, Gateway] = {}
        for name in self.worlds:
            self.here = self.worlds[name]
            self.databases[name] = Database(place, key, node=name)
            self.databases[name].watch = Always  # type: ignore[method-assign]
            self.start(name)

    def start(self, name: str) -> None:
        world, database = self.at(name), self.databases[name]
        with database.change("gateway") as change:
            nodes.arrive(change, "")
        self.gateways[name] = Gateway(
            database, world, world, clock=lambda: world.now, wall=database.clock, write=world.entries.append
        )
        self.gateways[name].start()
        self.gateways[name].tick()

    def at(self, name: str) -> World:
        self.here = self.worlds[name]
        return self.here

    def send(self, name: str) -> None:
        self.at(name)
        send(self.gateways[name])

    def pass_time(self, seconds: float) -> None:
        """Time passes everywhere, and the gateways tick."""
        self.date += seconds
        with self._phone.change("root") as change:
            change.connection.execute(text(f"UPDATE test_clock SET now = {self.date}"))
        for name, world in self.worlds.items():
            world.pass_time(seconds)
            self.at(name)
            self.gateways[name].tick()

    def left(self, name: str) -> float:
        """For how long the phone's session goes on there."""
        world = self.worlds[name]
        return world.open[PHONE[0]][0] - GRACE - world.now

    def close(self) -> None:
        for database in self.databases.values():
            database.close()


@pytest.fixture(params=SKEWS)
def hosts(
    request: pytest.FixtureRequest, phone: Database, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hosts]:
    made = Hosts(phone, place, tmp_path / "gateway.key", request.param, monkeypatch)
    yield made
    made.close()


def test_a_session_that_moves_ends_when_it_would_have_ended(hosts: Hosts, phone: Database) -> None:
    for first, second, after in (("a", "b", 7 * HOUR), ("b", "a", 7 * HOUR)):
        hosts.send(first)
        assert hosts.left(first) == pytest.approx(8 * HOUR, abs=BOUND)
        hosts.pass_time(after)
        hosts.send(second)
        assert hosts.left(second) == pytest.approx(8 * HOUR - after, abs=BOUND)
        hosts.start(second)  # again
        assert hosts.left(second) == pytest.approx(8 * HOUR - after, abs=BOUND)
        hosts.pass_time(8 * HOUR - after - BOUND)
        assert {*hosts.worlds[second].open} == {*PHONE}
        hosts.pass_time(2 * BOUND)
        assert hosts.worlds[second].open == {}
        assert int(last(phone)["connection-duration-seconds"]) == pytest.approx(8 * HOUR, abs=2 * BOUND)


def test_a_sign_in_at_one_gateway_lasts_as_long_at_another(hosts: Hosts, phone: Database) -> None:
    set_endpoint(phone, sign_in=True)
    for here, there in ("ab", "ba"):
        hosts.at(here)
        with hosts.databases[here].change("root") as change:
            devices.sign_in(change, "phone")
        hosts.pass_time(HOUR)
        hosts.send(there)
        assert hosts.left(there) == pytest.approx(7 * HOUR, abs=BOUND)
        hosts.pass_time(8 * HOUR)


def test_a_users_access_ends_at_its_moment_everywhere(hosts: Hosts, phone: Database) -> None:
    with phone.change("root") as change:
        alice = users.find(change.connection, "alice")
        users.replace(change, replace(alice, expires=hosts.date + HOUR))
    for name in ("a", "b"):
        hosts.send(name)
        assert hosts.left(name) == pytest.approx(HOUR, abs=BOUND)
    hosts.pass_time(HOUR - BOUND)
    assert {*hosts.worlds["b"].open} == {*PHONE}
    hosts.pass_time(2 * BOUND)
    assert hosts.worlds["b"].open == {}


def test_a_date_that_is_set_while_a_session_goes_on_moves_nothing(hosts: Hosts, phone: Database) -> None:
    """Before the gateway has said another word to the server, which tells it the date."""
    with phone.change("root") as change:
        alice = users.find(change.connection, "alice")
        users.replace(change, replace(alice, expires=hosts.date + 500))
    hosts.send("b")
    for ahead in (600.0, -1200.0):
        hosts.at("b").date += ahead
        hosts.gateways["b"].tick()
        assert hosts.left("b") == pytest.approx(500, abs=BOUND)
    with phone.read() as connection:
        assert not users.find(connection, "alice").expired


def test_a_clock_that_is_wrong_is_told_once(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    skew = hosts.worlds["b"].date - hosts.worlds["a"].date
    expected = f"the date of this host is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} that of the database"
    hosts.at("a")
    assert hosts.databases["a"].warnings() == {}
    hosts.at("b")
    assert hosts.databases["b"].warnings()["clock"].startswith(expected)
    for _ in range(3):
        hosts.pass_time(BEAT)
    said = [*caplog.get_records("setup"), *caplog.records]
    assert [record.getMessage()[: len(expected)] for record in said] == [expected]
    hosts.at("b").date -= skew
    hosts.pass_time(BEAT)
    assert hosts.databases["b"].warnings() == {}
