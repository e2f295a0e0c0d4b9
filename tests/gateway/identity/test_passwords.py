"""Passwords: hashed well, a few at a time, and as long for nobody as for somebody."""

from __future__ import annotations

import threading
from typing import Any

import argon2
import pytest

from wgpy.gateway.identity import passwords
from wgpy.gateway.identity.passwords import Busy, Hasher
from wgpy.gateway.store import credentials
from wgpy.gateway.store.database import Database

PASSWORD = "four plain words here"


class Counting(argon2.PasswordHasher):
    """Counts how often a password is hashed, which is what costs time. It takes little, so that tests are fast."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=64, parallelism=1)
        self.hashed = 0

    def hash(self, *arguments: Any, **more: Any) -> str:
        self.hashed += 1
        return super().hash(*arguments, **more)

    def verify(self, *arguments: Any, **more: Any) -> Any:
        self.hashed += 1
        return super().verify(*arguments, **more)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    made = Counting()
    monkeypatch.setattr(passwords, "PasswordHasher", lambda **parameters: made)
    return made


def set_password(database: Database, encoded: str) -> None:
    with database.change("root") as change:
        credentials.set_password(change, "alice", encoded)


def test_a_hash_is_argon2id_of_owasps_minimum_or_better() -> None:
    """https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html: 19 MiB, 2 passes, 1 lane."""
    encoded = Hasher().hash(PASSWORD)
    found = argon2.extract_parameters(encoded)
    assert found.type is argon2.Type.ID
    assert found.memory_cost >= 19 << 10
    assert found.time_cost >= 2
    assert argon2.PasswordHasher().verify(encoded, PASSWORD), "any other argon2 agrees"
    assert not Hasher().verify(encoded, PASSWORD + "x")


def test_nobody_costs_as_much_as_somebody(database: Database, counting: Counting) -> None:
    hasher = Hasher()
    set_password(database, hasher.hash(PASSWORD))
    attempts = [("alice", PASSWORD), ("alice", "wrong"), ("nobody", PASSWORD), ("", ""), ("alice", "x" * 10_000)]
    answers = []
    for name, password in attempts:
        counting.hashed = 0
        answers.append((passwords.check(database, hasher, name, password), counting.hashed))
    assert answers == [(True, 1), *[(False, 1)] * 4]


def test_a_user_without_a_password_has_none(database: Database, counting: Counting) -> None:
    with database.change("root") as change:
        credentials.handle(change, "alice")
    assert not passwords.check(database, Hasher(), "alice", "")
    set_password(database, "no hash at all")
    assert not passwords.check(database, Hasher(), "alice", "no hash at all")


def test_a_hash_with_outdated_parameters_is_replaced_when_its_password_is_right(
    database: Database, counting: Counting
) -> None:
    old = argon2.PasswordHasher(time_cost=1, memory_cost=32, parallelism=1).hash(PASSWORD)
    set_password(database, old)
    assert not passwords.check(database, Hasher(), "alice", "wrong")
    assert stored(database) == old
    assert passwords.check(database, Hasher(), "alice", PASSWORD)
    assert argon2.extract_parameters(stored(database)).memory_cost == 64
    assert passwords.check(database, Hasher(), "alice", PASSWORD)


def stored(database: Database) -> str:
    with database.read() as connection:
        found = credentials.find(connection, "alice")
    assert found
    return found.password


def test_the_same_letters_typed_on_another_keyboard_are_the_same_password(counting: Counting) -> None:
    hasher = Hasher()
    encoded = hasher.hash("gr\u00fc\u00dfe an alle hier")
    assert hasher.verify(encoded, "gru\u0308\u00dfe an alle hier")
    assert not hasher.verify(encoded, "gru\u00dfe an alle hier")
    assert not hasher.verify(encoded, "\udcff"), "what is no text raises nothing"


def test_a_few_are_hashed_at_once_a_few_wait_and_the_rest_is_refused(counting: Counting) -> None:
    """Whatever comes, memory is bounded: each hash takes as much as `MEMORY`."""
    hasher = Hasher(at_once=2, waiting=3)
    running, most, go, lock = 0, 0, threading.Event(), threading.Lock()

    def slow(*_: object) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(10)
        with lock:
            running -= 1
        return "$"

    counting.hash = slow  # type: ignore[method-assign]
    refused: list[Busy] = []
    admitted = threading.Semaphore(0)

    def attempt() -> None:
        try:
            hasher.hash(PASSWORD)
        except Busy as error:
            refused.append(error)
            admitted.release()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        assert admitted.acquire(timeout=10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert len(refused) == 3
    assert most == 2
    assert hasher.hash(PASSWORD) == "$", "everybody has made room again"


@pytest.mark.parametrize(
    ("password", "why"),
    [
        (PASSWORD, ""),
        ("eleven char", "too short"),
        ("twelve chars", ""),
        ("x" * 257, "too long"),
        ("abcabcabcabcabc", "5 different"),
        ("my name is Alice!", "the user's name"),
        ("gru\u0308\u00dfe wort", "too short"),
    ],
)
def test_a_weak_password_is_refused_with_a_sentence(password: str, why: str) -> None:
    said = passwords.refusal("alice@example.org", password)
    assert why in said
    assert bool(why) is bool(said)
