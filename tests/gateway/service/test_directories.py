"""People are asked about again: groups follow, who is gone is out, and a directory that is down opens nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from tests.gateway.service.world import PHONE, World, last, send
from wgpy.gateway.identity.directory import CannotAsk, Client, Clients, Confirmed, Refused, Unavailable
from wgpy.gateway.policy.directories import Directory, GroupMapping
from wgpy.gateway.policy.people import Person, User
from wgpy.gateway.service.directories import PAUSE, Checks
from wgpy.gateway.service.gateway import Gateway
from wgpy.gateway.store import audit, directories, logins, schema, users
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.directories import INTERVAL

CORP = Directory(name="corp", kind="oidc", settings={}, groups=GroupMapping(prefix=""), grace=600)
MOST = 4  # people asked about at once
DOWN = Unavailable("directory corp: it is down")
Answer = Confirmed | Exception | None


class Corp:
    """A directory's people, what it answers about each, and the date."""

    def __init__(self, database: Database) -> None:
        self.database, self.date = database, 100_000.0
        self.answers: dict[str, Answer] = {}
        self.default: Answer = DOWN
        self.asked: Counter[str] = Counter()
        self.tokens: dict[str, bytes] = {}

    async def check(self, subject: str, token: bytes) -> Confirmed | None:
        self.asked[subject] += 1
        self.tokens[subject] = token
        answer = self.answers.get(subject, self.default)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def probe(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None:
        pass

    async def of(self, name: str) -> Client:
        return self

    def sign_in(self, *names: str, browser: bool = True) -> None:
        """People sign in, in a browser that stays signed in."""
        with self.database.change("people") as change:
            for name in names:
                users.take_in(change, person(name).person)
                directories.confirm(change, name, b"first")
                if browser:
                    logins.add(change, name, "directory corp", "192.0.2.1")

    def round(self, checks: Checks | None = None) -> None:
        """Ask about everybody who is due."""
        made = checks or self.checks()
        for source in made.due():
            asyncio.run(made.check(source))

    def checks(self) -> Checks:
        clients: Any = self
        return Checks(self.database, clients)

    def user(self, name: str) -> User:
        with self.database.read() as connection:
            return users.find(connection, name)


def person(name: str, *groups: str, token: bytes | None = b"next") -> Confirmed:
    return Confirmed(Person(name=name, source="corp", subject=f"id of {name}", groups=frozenset(groups)), token)


@pytest.fixture
def corp(database: Database, monkeypatch: pytest.MonkeyPatch) -> Corp:
    made = Corp(database)
    monkeypatch.setattr(database, "clock", lambda: made.date)
    monkeypatch.setattr("wgpy.gateway.service.directories.MOST", MOST)
    with database.change("root") as change:
        directories.add(change, CORP, b"")
    return made


def test_groups_follow_the_directory_and_nothing_is_recorded_while_nothing_changes(corp: Corp) -> None:
    corp.sign_in("bob")
    corp.answers["id of bob"] = person("bob", "staff")
    for _ in range(3):
        corp.date += INTERVAL
        corp.round()
    assert corp.user("bob").groups == {"staff"}
    assert (corp.asked["id of bob"], corp.tokens["id of bob"]) == (3, b"next")
    with corp.database.read() as connection:
        recorded = [entry["who"] for entry in audit.find_last(connection, 100) if entry["name"] == "bob"]
    assert recorded == ["people", "people", "directory corp"]  # came, signed in, got the group


def test_somebody_is_asked_about_once_in_an_interval_and_only_while_connected(corp: Corp) -> None:
    corp.sign_in("bob")
    corp.sign_in("carol", browser=False)
    corp.answers = {f"id of {name}": person(name) for name in ("bob", "carol")}
    corp.round()
    assert not corp.asked  # they have just signed in
    for _ in range(int(INTERVAL * 3 / PAUSE)):
        corp.date += PAUSE
        corp.round()
    assert corp.asked == {"id of bob": 3}
    with corp.database.change("gateway") as change:
        row = {"id": "1", "device": "x", "user": "carol", "started_at": corp.date, "entry": {}}
        change.connection.execute(schema.sessions.insert().values(row))
    corp.round()
    assert corp.asked["id of carol"] == 1


@pytest.mark.parametrize("answer", [None, Refused("directory corp: only people whose claim hd is example.org")])
def test_who_is_disabled_or_no_longer_may_is_out_and_is_not_asked_about_again(corp: Corp, answer: Answer) -> None:
    corp.sign_in("bob", "carol")
    corp.answers = {"id of bob": answer, "id of carol": person("carol")}
    for _ in range(3):
        corp.date += INTERVAL
        corp.round()
    assert corp.user("bob").suspended
    assert not corp.user("carol").suspended
    assert corp.asked["id of bob"] == 1
    with corp.database.read() as connection:
        assert logins.find_all(connection, "bob") == []
        assert logins.find_all(connection, "carol")


def test_their_session_ends_with_the_next_tick(gateway: Gateway, phone: Database, world: World, corp: Corp) -> None:
    with phone.change("root") as change:
        come = update(schema.users).where(schema.users.c.name == "alice")
        change.connection.execute(come.values(source="corp", subject="id of alice"))
        directories.confirm(change, "alice", b"first")
    corp.answers["id of alice"] = person("alice", "staff")
    send(gateway)
    assert {*world.open} == {*PHONE}
    corp.date += INTERVAL
    corp.round()
    gateway.tick()
    assert {*world.open} == {*PHONE}
    corp.answers["id of alice"] = None
    corp.date += INTERVAL
    corp.round()
    gateway.tick()
    assert world.open == {}
    assert last(phone)["connection-end-reason"] == "user-disabled"


def test_a_directory_that_is_down_closes_nothing_within_its_grace_and_everything_after(corp: Corp) -> None:
    corp.sign_in("bob")
    start = corp.date
    while corp.date < start + CORP.grace - INTERVAL:
        corp.date += INTERVAL
        corp.round()
        assert not corp.user("bob").suspended
    corp.date = start + CORP.grace
    corp.round()
    assert corp.user("bob").suspended


def test_a_directory_that_was_down_and_is_back_begins_a_new_grace(corp: Corp) -> None:
    corp.sign_in("bob")
    corp.date += CORP.grace - 1
    corp.round()
    corp.answers["id of bob"] = person("bob")
    corp.date += INTERVAL
    corp.round()  # too late by the clock, but it answers
    corp.answers["id of bob"] = DOWN
    corp.date += CORP.grace - 1
    corp.round()
    assert not corp.user("bob").suspended


def test_without_grace_the_first_failure_closes(corp: Corp) -> None:
    with corp.database.change("root") as change:
        directories.replace(change, replace(CORP, grace=0))
    corp.sign_in("bob")
    corp.date += INTERVAL
    corp.round()
    assert corp.user("bob").suspended


def test_a_directory_that_is_down_is_not_asked_about_everybody_and_yet_closes_for_all(corp: Corp) -> None:
    names = [f"u{number}" for number in range(MOST * 3)]
    corp.sign_in(*names)
    corp.date += CORP.grace
    corp.round()
    assert corp.asked.total() == MOST
    assert all(corp.user(name).suspended for name in names)


def test_one_person_about_whom_no_answer_can_be_had_keeps_nobody_else_waiting(corp: Corp) -> None:
    names = [f"u{number}" for number in range(MOST * 2)]
    corp.sign_in(*names)
    corp.answers = {f"id of {name}": person(name, "staff") for name in names}
    corp.answers["id of u7"] = DOWN
    corp.date += INTERVAL
    corp.round()
    assert {name for name in names if corp.user(name).groups != {"staff"}} == {"u7"}


def test_a_token_that_changed_is_kept_although_the_answer_could_not_be_used(corp: Corp) -> None:
    corp.sign_in("bob")
    trouble = Unavailable("directory corp: it says who somebody else is")
    trouble.token = b"new"
    corp.answers["id of bob"] = trouble
    for _ in range(2):
        corp.date += INTERVAL
        corp.round()
    assert corp.tokens["id of bob"] == b"new"


def test_somebody_who_cannot_be_asked_about_is_left_alone(corp: Corp) -> None:
    corp.sign_in("bob")
    corp.answers["id of bob"] = CannotAsk()
    for _ in range(3):
        corp.date += CORP.grace
        corp.round()
    assert corp.asked["id of bob"] == 1
    assert not corp.user("bob").suspended


def test_an_answer_that_is_late_brings_nobody_back_and_throws_nobody_out(corp: Corp) -> None:
    corp.sign_in("bob", "carol")

    class Slow(Corp):
        async def check(self, subject: str, token: bytes) -> Confirmed | None:
            with self.database.change("root") as change:  # meanwhile
                if subject == "id of bob":
                    users.remove(change, "bob")
                    return person("bob", "staff")
                users.take_in(change, person("carol").person)
                directories.confirm(change, "carol", b"of the new sign-in")
            return None  # the former sign-in's token is good for nothing now

    slow = Slow(corp.database)
    slow.date = corp.date = corp.date + INTERVAL
    slow.round()
    with corp.database.read() as connection:
        assert [user.name for user in users.find_all(connection)] == ["alice", "carol"]
    assert not corp.user("carol").suspended


def test_several_gateways_ask_about_each_person_once(corp: Corp) -> None:
    names = [f"u{number}" for number in range(10)]
    corp.sign_in(*names)
    corp.answers = {f"id of {name}": person(name) for name in names}
    corp.date += INTERVAL
    for checks in (corp.checks(), corp.checks()):
        corp.round(checks)
    assert {*corp.asked.values()} == {1}


def test_a_date_that_was_set_back_is_no_way_around_a_check(corp: Corp) -> None:
    corp.sign_in("bob")
    corp.date -= 10 * INTERVAL
    corp.answers["id of bob"] = None
    corp.round()
    assert corp.asked["id of bob"] == 1


def test_a_trouble_is_logged_once(corp: Corp, caplog: pytest.LogCaptureFixture) -> None:
    corp.sign_in("bob")
    checks = corp.checks()
    for _ in range(5):
        corp.date += INTERVAL
        corp.round(checks)
    corp.answers["id of bob"] = person("bob")
    corp.date += INTERVAL
    corp.round(checks)
    texts = [record.message for record in caplog.records if record.name == "wgpy.gateway"]
    assert texts == ["directory corp: it is down; trying again", "directory corp: all is well again"]


def test_a_client_is_made_anew_when_its_directory_changes(database: Database) -> None:
    async def scenario() -> None:
        settings = {"issuer": "https://id.example.org", "client_id": "vpn"}
        with database.change("root") as change:
            directories.add(change, replace(CORP, settings=settings), b"one")
        clients = Clients(database)
        first = await clients.of("corp")
        assert await clients.of("corp") is first
        with database.change("root") as change:
            directories.replace(change, replace(CORP, settings=settings), b"two")
        assert await clients.of("corp") is not first
        await clients.close()

    asyncio.run(scenario())
