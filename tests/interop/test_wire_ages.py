"""On the wire: the ages of keys, on a real clock.

As with the timers, all programs go side by side. It takes three minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from tests.interop.test_wire_timers import side_by_side as side_by_side
from tests.interop.wire import SideBySide, Subject
from tests.support.wire import Driver, Received
from wgpy.constants import MESSAGE_INITIATION, MESSAGE_TRANSPORT, REJECT_AFTER_TIME, REKEY_AFTER_TIME

pytestmark = [pytest.mark.root, pytest.mark.wire]

MARGIN = 5.0  # seconds before and after an age


class Sessions:
    """Three of one program: one that it began, one that it answered, and one that rests until it is too old."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.failure: AssertionError | None = None
        self.began = self.answered = self.forgotten = subject.driver()
        self.heard: dict[tuple[str, Driver], list[Received]] = {}
        try:
            self.answered, self.forgotten = subject.driver(), subject.driver()
            subject.ping(self.began)
            self.began.answer()
            for driver in (self.answered, self.forgotten):
                driver.handshake()
            self.keep_alive()
        except AssertionError as error:
            self.failure = error

    def keep_alive(self) -> None:
        """Authentic packets, so that nobody takes the silence for a dead peer."""
        for driver in (self.began, self.answered):
            driver.send(driver.sealed(b""))

    def listen(self, moment: str, *drivers: Driver) -> None:
        """What came since the last time."""
        for driver in drivers:
            self.heard[moment, driver] = driver.heard(0)

    def kinds(self, moment: str, driver: Driver) -> set[int]:
        if self.failure is not None:
            raise AssertionError(f"the sessions could not be made: {self.failure}")
        return {received.kind for received in self.heard[moment, driver]}


def have_data_sent(all_sessions: Iterable[Sessions], moment: str, *names: str) -> None:
    """Have each program send a packet to these peers, and note what comes."""
    for sessions in all_sessions:
        drivers = [getattr(sessions, name) for name in names]
        sessions.listen("before", *drivers)
        for driver in drivers:
            sessions.subject.ping(driver)
    time.sleep(1)
    for sessions in all_sessions:
        sessions.listen(moment, *(getattr(sessions, name) for name in names))
        if sessions.failure is None:
            sessions.keep_alive()


@pytest.fixture(scope="module")
def aged(side_by_side: SideBySide) -> dict[str, Sessions]:
    """The sessions of each program, after they have become too old."""
    began = time.monotonic()
    with side_by_side.opened() as subjects:
        found = {program: Sessions(subject) for program, subject in subjects.items()}
        made = time.monotonic()
        time.sleep(began + REKEY_AFTER_TIME - MARGIN - time.monotonic())
        have_data_sent(found.values(), "young", "began", "answered")
        time.sleep(made + REKEY_AFTER_TIME + 1 - time.monotonic())
        have_data_sent(found.values(), "due", "began", "answered")
        time.sleep(made + REJECT_AFTER_TIME + 1 - time.monotonic())
        for sessions in found.values():
            sessions.listen("before", sessions.forgotten)
            if sessions.failure is None:
                sessions.forgotten.send(sessions.forgotten.ping()[0])
        time.sleep(1)
        for sessions in found.values():
            sessions.listen("expired", sessions.forgotten)
        have_data_sent(found.values(), "data to the expired", "forgotten")
    return found


@pytest.fixture
def sessions(
    request: pytest.FixtureRequest, side_by_side: SideBySide, aged: dict[str, Sessions], program: str
) -> Sessions:
    side_by_side.concern(request.node)
    return aged[program]


@pytest.mark.slow
@pytest.mark.scenario("paper, 6.2: Rekey-After-Time", "kernel send.c, keep_key_fresh")
def test_wire_the_initiator_renews_a_session_after_two_minutes(sessions: Sessions) -> None:
    """The initiator of a session starts a new handshake when it sends data after 120 seconds, and not before."""
    assert sessions.kinds("young", sessions.began) == {MESSAGE_TRANSPORT}
    assert sessions.kinds("due", sessions.began) == {MESSAGE_TRANSPORT, MESSAGE_INITIATION}


@pytest.mark.slow
@pytest.mark.scenario("paper, 6.2: only the initiator", "kernel send.c, keep_key_fresh")
def test_wire_the_responder_does_not_renew_it(sessions: Sessions) -> None:
    """A program that answered in a session does not initiate when it sends data after 120 seconds."""
    assert sessions.kinds("young", sessions.answered) == {MESSAGE_TRANSPORT}
    assert sessions.kinds("due", sessions.answered) == {MESSAGE_TRANSPORT}


@pytest.mark.slow
@pytest.mark.scenario("paper, 6.2: Reject-After-Time", "kernel receive.c and send.c")
def test_wire_a_session_expires_after_three_minutes(sessions: Sessions) -> None:
    """Data under a session older than 180 seconds is not accepted; to send data, the program starts a new handshake."""
    assert sessions.kinds("expired", sessions.forgotten) == set()
    assert sessions.kinds("data to the expired", sessions.forgotten) == {MESSAGE_INITIATION}
