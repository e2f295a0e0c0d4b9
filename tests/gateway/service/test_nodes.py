"""Two gateways that share a database: a device goes from one to the other, and its session with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.service.world import HOUR, KEY, PHONE, World, last, send, set_endpoint
from wgpy.errors import ControlError
from wgpy.gateway.service.gateway import BEAT, GRACE, MEASURED, Gateway
from wgpy.gateway.store import devices, moves, nodes, sessions
from wgpy.gateway.store.database import Database

pytestmark = [pytest.mark.peer, pytest.mark.parametrize("both_kinds", ["postgresql"], indirect=True)]


class Pair:
    """Two hosts with clocks that the test turns together. The dates are those of the database."""

    def __init__(self, phone: Database, place: str, key: Path) -> None:
        self.worlds = {"a": World(), "b": World()}
        self.worlds["b"].now = 90_000.0  # b has been up for longer
        self.databases = {name: Database(place, key, node=name) for name in self.worlds}
        self.gateways = {name: self.start(name) for name in self.worlds}

    def start(self, name: str) -> Gateway:
        world, database = self.worlds[name], self.databases[name]
        with database.change("gateway") as change:
            change.now = world.date
            nodes.arrive(change, "")
        database.watch = Always  # type: ignore[method-assign]
        database.clock = lambda: world.date
        made = Gateway(
            database, world, world, clock=lambda: world.now, wall=lambda: world.date, write=world.entries.append
        )
        made.start()
        made.tick()
        return made

    def tick(self) -> None:
        for gateway in self.gateways.values():
            gateway.tick()

    def pass_time(self, seconds: float) -> None:
        for world in self.worlds.values():
            world.pass_time(seconds)

    def open_at(self, name: str) -> set[object]:
        return {*self.worlds[name].open}


class Always:
    """A watch that always says that there was a change."""

    def changed(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def pair(phone: Database, place: str, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(phone, place, tmp_path / "gateway.key")
    yield made
    for database in made.databases.values():
        database.close()


def entries(pair: Pair) -> list[tuple[str, str]]:
    return [(name, entry["connection-log-type"]) for name, world in pair.worlds.items() for entry in world.entries]


def rows(database: Database) -> list[dict[str, object]]:
    with database.read() as connection:
        return sessions.under_way(connection)


def test_a_session_goes_with_its_device_and_is_counted_once(pair: Pair, phone: Database) -> None:
    send(pair.gateways["a"])
    assert pair.open_at("a") == {*PHONE}
    pair.worlds["a"].traffic(PHONE[0], 3)
    pair.pass_time(MEASURED)
    pair.tick()
    pair.worlds["a"].traffic(PHONE[0], 4)  # which nobody has written down when the device moves
    pair.pass_time(HOUR - MEASURED - BEAT / 2)
    send(pair.gateways["b"])
    assert pair.open_at("b") == {*PHONE}
    (row,) = rows(phone)
    assert row["node"] == "b"
    pair.gateways["a"].tick()
    assert pair.open_at("a") == set()
    assert pair.gateways["a"].active == 0
    assert pair.worlds["a"].forgotten == {KEY}
    pair.worlds["b"].traffic(PHONE[0], 5)
    pair.pass_time(MEASURED)
    pair.tick()
    (row,) = rows(phone)
    assert row["entry"]["ingress-packets"] == "12"  # type: ignore[index]
    pair.pass_time(7 * HOUR)
    pair.tick()
    assert pair.open_at("b") == set()
    assert last(phone)["connection-end-reason"] == "session-expired"
    assert last(phone)["ingress-packets"] == "12"
    assert entries(pair) == [("a", "connection-attempt"), ("b", "connection-reset")]


def test_a_session_ends_when_it_would_have_ended_where_it_began(pair: Pair) -> None:
    send(pair.gateways["a"])
    pair.pass_time(8 * HOUR - 60)
    send(pair.gateways["b"])
    world = pair.worlds["b"]
    assert world.open[PHONE[0]][0] == pytest.approx(world.now + 60 + GRACE)


def test_the_session_of_a_killed_gateway_goes_on_at_another_with_what_was_written(pair: Pair, phone: Database) -> None:
    send(pair.gateways["a"])
    pair.worlds["a"].traffic(PHONE[0], 3)
    pair.pass_time(MEASURED)
    pair.gateways["a"].tick()
    del pair.gateways["a"]
    send(pair.gateways["b"])
    pair.worlds["b"].traffic(PHONE[0], 5)
    pair.pass_time(MEASURED)
    pair.tick()
    (row,) = rows(phone)
    assert (row["node"], row["entry"]["ingress-packets"]) == ("b", "8")  # type: ignore[index]
    pair.gateways["a"] = pair.start("a")  # which still has the session in its kernel
    assert pair.open_at("a") == set()
    assert pair.worlds["a"].forgotten == {KEY}
    assert pair.open_at("b") == {*PHONE}


def test_a_device_that_goes_to_and_fro_loses_nothing(pair: Pair, phone: Database) -> None:
    for turn in range(6):
        here = "ab"[turn % 2]
        send(pair.gateways[here])
        assert pair.open_at(here) == {*PHONE}, turn
        pair.worlds[here].traffic(PHONE[1], turn + 1)
        pair.pass_time(1)
        pair.tick()
        pair.tick()
    pair.pass_time(MEASURED)
    pair.tick()
    pair.tick()
    (row,) = rows(phone)
    assert row["entry"]["egress-packets"] == "21"  # type: ignore[index]
    assert len(entries(pair)) == 1


def test_a_node_that_was_cut_off_learns_of_a_session_that_ended_elsewhere(
    pair: Pair, phone: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(pair.gateways["a"])
    pair.worlds["a"].traffic(PHONE[0], 2)
    with monkeypatch.context() as patched:
        patched.setattr(pair.databases["a"], "read", fail)
        pair.gateways["a"].tick()
        send(pair.gateways["b"])
        with phone.change("root") as change:
            sessions.terminate(change, "phone")
            devices.enable(change, "phone", enabled=False)
        pair.gateways["b"].tick()
    assert pair.open_at("b") == set()
    pair.gateways["a"].tick()
    assert pair.open_at("a") == set()
    assert last(phone)["connection-end-reason"] == "terminated"
    assert last(phone)["ingress-packets"] == "2"
    assert entries(pair) == [("a", "connection-attempt"), ("b", "connection-reset")]


def fail(*_: object) -> None:
    raise ControlError("the database does not answer")


def test_without_the_database_sessions_go_on_until_their_time_is_up_and_none_begins(
    pair: Pair, phone: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gateway, world = pair.gateways["a"], pair.worlds["a"]
    send(gateway)
    with monkeypatch.context() as patched:
        for name in ("read", "change"):
            patched.setattr(pair.databases["a"], name, fail)
        world.pass_time(HOUR)
        gateway.tick()
        assert {*world.open} == {*PHONE}
        world.pass_time(7 * HOUR - 1)
        gateway.tick()
        assert {*world.open} == {*PHONE}
        world.pass_time(1)
        gateway.tick()
        assert world.open == {}
        send(gateway)
        world.pass_time(BEAT)
        send(gateway)
        assert world.open == {}
    assert [record.getMessage() for record in caplog.records] == ["the database does not answer; trying again"]
    gateway.tick()
    with phone.read() as connection:
        reasons = [entry["connection-end-reason"] for entry in sessions.last(connection, 9)]
    assert reasons.count("session-expired") == 1
    assert {*world.open} == {*PHONE}  # what it had noticed meanwhile


def test_two_nodes_that_hear_a_device_at_once_have_one_session_of_it(pair: Pair, phone: Database) -> None:
    for gateway in pair.gateways.values():
        gateway.notice({PHONE[0]})
    pair.tick()
    pair.tick()
    assert len(rows(phone)) == 1
    assert [bool(pair.open_at(name)) for name in "ab"] == [False, True]


def test_the_handler_is_asked_again_at_the_node_to_which_a_device_goes_meanwhile(pair: Pair, phone: Database) -> None:
    set_endpoint(phone, handler="/bin/true")
    pair.tick()
    send(pair.gateways["a"])
    send(pair.gateways["b"])
    asked = [gateway.questions[0].session for gateway in pair.gateways.values()]
    assert asked[0] == asked[1]
    assert len(rows(phone)) == 1
    assert pair.open_at("a") == pair.open_at("b") == set()


def test_the_sessions_of_a_lost_node_end_in_the_books_when_their_time_is_up(pair: Pair, phone: Database) -> None:
    send(pair.gateways["a"])
    del pair.gateways["a"]
    pair.pass_time(8 * HOUR)
    pair.tick()
    assert len(rows(phone)) == 1
    pair.pass_time(BEAT)
    pair.tick()
    assert rows(phone) == []
    assert last(phone)["connection-end-reason"] == "gateway-stopped"
    with phone.read() as connection:
        found = {node.name: (node.sessions, node.seen_at) for node in nodes.find_all(connection)}
        assert moves.last(connection) == 0
    assert found["b"][1] - found["a"][1] >= 8 * HOUR
