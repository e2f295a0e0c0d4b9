"""How many passwords and codes are looked at, however many requests come at once, and at however many gateways."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import pytest
from httpx2 import Response

from tests.gateway.web.sign_in.conftest import PASSWORD
from tests.gateway.web.sign_in.person import Person
from tests.support.peers import wait_for
from wgpy.gateway.policy.people import Person as Proved
from wgpy.gateway.policy.throttle import Limit
from wgpy.gateway.web.attempts import Attempts
from wgpy.gateway.web.sign_in import factors, methods
from wgpy.gateway.web.site import Site

ALLOWED, AT_ONCE = 3, 9


@pytest.fixture
def site(site: Site) -> Site:
    """One at which an account has a few attempts."""
    return replace(site, throttle=Attempts(Limit(ALLOWED, 600.0), Limit(100, 1.0)))


def answered(people: list[Person], send: Callable[[Person], Response], judging: list[str], go_on: Event) -> list[int]:
    """The statuses of requests that are sent at once, and judged only when all the others were answered."""
    with ThreadPoolExecutor(len(people)) as threads:
        waiting = [threads.submit(send, person) for person in people]
        try:
            assert wait_for(lambda: len(judging) + sum(each.done() for each in waiting) == len(people), 60)
        finally:
            go_on.set()
        return sorted(each.result().status_code for each in waiting)


def test_passwords_that_are_sent_at_once_are_counted_before_any_is_looked_at(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    judging, go_on = list[str](), Event()

    def wrong(_: Site, name: str, password: str) -> Proved | None:
        judging.append(password)
        go_on.wait(60)
        return None

    monkeypatch.setattr(methods, "check_password", wrong)
    people = [Person(site, f"192.0.2.{number}") for number in range(AT_ONCE)]
    for person in people:
        person.open("/sign-in")
    sent = answered(people, lambda each: each.send("/sign-in", name="alice", password="guess"), judging, go_on)
    assert sent == [403] * ALLOWED + [429] * (AT_ONCE - ALLOWED)
    assert len(judging) == ALLOWED


def test_codes_that_are_sent_at_once_are_counted(site: Site, app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    people = [Person(site, f"192.0.2.{number}") for number in range(AT_ONCE)]
    for person in people:  # who all know the password, which takes no attempt away
        person.type_password(PASSWORD)
    judged = list[str]()

    def wrong(*_: object) -> str:
        judged.append("code")
        return ""

    monkeypatch.setattr(factors, "proved_by_code", wrong)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        sent = [*threads.map(lambda each: each.send("/sign-in/second/code", code="000000").status_code, people)]
    assert sorted(sent) == [403] * ALLOWED + [429] * (AT_ONCE - ALLOWED)
    assert len(judged) == ALLOWED


def test_each_gateway_of_a_database_allows_as_many_attempts_and_no_more(site: Site) -> None:
    """As docs/threat-model.md says: they share no counters, so that guessing does not write to the database."""
    gateways = [site, replace(site, throttle=Attempts(Limit(ALLOWED, 600.0), Limit(100, 1.0)))]
    with site.database.read() as connection:
        before = connection.exec_driver_sql("PRAGMA data_version").scalar()
        for gateway in gateways:
            mallory = Person(gateway)
            statuses = [mallory.type_password("guess").status_code for _ in range(ALLOWED + 2)]
            assert statuses == [403] * ALLOWED + [429] * 2
        assert connection.exec_driver_sql("PRAGMA data_version").scalar() == before
