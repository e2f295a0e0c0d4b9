"""On the wire: timers, on a real clock.

All scenarios wait side by side, each with a peer of its own, and all programs with them: each is set going, then
nothing is done for as long as the longest takes, and what has come by then is looked at, with the times at which the
system received it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.interop.wire import SideBySide, Subject
from tests.support.wire import ECHO_REPLY, Driver, Received
from wgpy.constants import (
    KEEPALIVE_TIMEOUT,
    MESSAGE_INITIATION,
    MESSAGE_TRANSPORT,
    REKEY_TIMEOUT,
    RETRANSMIT_JITTER,
)
from wgpy.noise.cookie import CookieChecker
from wgpy.noise.handshake import LocalStatic, RemoteStatic, open_initiation

# All in one process, because each would wait for all programs, the emulated kernel among them.
pytestmark = [pytest.mark.root, pytest.mark.wire, pytest.mark.xdist_group("kernel")]

EARLY = 0.3  # seconds by which a timer may be early: some programs read their clock every quarter of a second
LATE = 1.5  # seconds by which it may be late, on a busy machine or by a program that looks at its timers now and then
LONGEST = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + RETRANSMIT_JITTER + LATE
PERSISTENT = 3  # seconds


class Watch:
    """Peers of one program, set going; then what it sent to them while none answered."""

    def __init__(self, subject: Subject) -> None:
        self.failure: AssertionError | None = None
        self.silent = self.talker = self.listener = self.vanished = self.persistent = subject.driver()
        try:
            self._set_going(subject)
        except AssertionError as error:
            self.failure = error

    def _set_going(self, subject: Subject) -> None:
        self.persistent = subject.driver(keepalive=PERSISTENT)
        self.persistent.answer()
        self.talker, self.listener, self.vanished = (subject.driver(endpoint=False) for _ in range(3))
        for driver in (self.talker, self.listener, self.vanished):
            driver.handshake()
        self.listener.send(self.listener.sealed(b""))
        ping, _ = self.vanished.ping()
        self.vanished.send(ping)
        self.vanished_at = self.vanished.next(MESSAGE_TRANSPORT).at  # data after which nothing comes back
        for _ in range(3):
            subject.ping(self.silent)
        data, _ = self.talker.ping(kind=ECHO_REPLY)
        self.talked_at = time.time()
        self.talker.send(data)

    def collect(self) -> None:
        """Read what has come."""
        drivers = (self.silent, self.talker, self.listener, self.vanished, self.persistent)
        self._heard = {driver.public_key: driver.heard(0) for driver in drivers}

    def of(self, driver: Driver) -> list[Received]:
        if self.failure is not None:
            raise AssertionError(f"the peers could not be set going: {self.failure}")
        return self._heard[driver.public_key]


@pytest.fixture(scope="module")
def side_by_side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SideBySide]:
    programs = SideBySide(request, tmp_path_factory)
    yield programs
    programs.close()


@pytest.fixture(scope="module")
def watches(side_by_side: SideBySide) -> dict[str, Watch]:
    """One of each program."""
    with side_by_side.opened() as subjects:
        found = {program: Watch(subject) for program, subject in subjects.items()}
        time.sleep(LONGEST)
        for watch in found.values():
            watch.collect()
    return found


@pytest.fixture
def watch(request: pytest.FixtureRequest, side_by_side: SideBySide, watches: dict[str, Watch], program: str) -> Watch:
    side_by_side.concern(request.node)
    return watches[program]


@pytest.mark.scenario("paper, 6.4: handshake initiation retransmission", "paper, 6.1: jitter", "kernel timers.c")
def test_wire_an_unanswered_initiation_is_repeated(watch: Watch) -> None:
    """Without an answer an initiation follows every 5 seconds, and up to a third of a second of jitter, and no other.

    Three packets that wait do not make more of them.
    """
    heard = watch.of(watch.silent)
    assert {received.kind for received in heard} == {MESSAGE_INITIATION}
    gaps = [after.at - before.at for before, after in pairwise(heard)]
    assert len(gaps) >= 2
    assert all(REKEY_TIMEOUT - EARLY <= gap <= REKEY_TIMEOUT + RETRANSMIT_JITTER + LATE for gap in gaps), gaps


@pytest.mark.scenario("paper, 5.4.2: first message", "paper, 5.1: timestamps", "paper, 5.4.4: mac1")
def test_wire_each_initiation_is_new(watch: Watch) -> None:
    """Repeated initiations have a right mac1, ephemeral keys and indices of their own, and timestamps that rise."""
    driver, messages = watch.silent, [received.data for received in watch.of(watch.silent)]
    local = LocalStatic(driver.key)
    opened = [open_initiation(local, message) for message in messages]
    stamps = [
        initiation.authenticate(RemoteStatic.of(local, initiation.remote_public)).timestamp for initiation in opened
    ]
    assert all(CookieChecker(driver.public_key).verify_mac1(message) for message in messages)
    assert len({message[8:40] for message in messages}) == len(messages) > 1
    assert len({message[4:8] for message in messages}) == len(messages)
    assert stamps == sorted(set(stamps))


@pytest.mark.scenario("paper, 6.5: keepalive", "kernel timers.c, wg_expired_send_keepalive")
def test_wire_data_without_a_reply_is_acknowledged_by_a_keepalive(watch: Watch) -> None:
    """10 seconds after it received data, if it has sent nothing since, the program sends exactly one keepalive."""
    heard = watch.of(watch.talker)
    assert [received.is_keepalive for received in heard] == [True]
    assert KEEPALIVE_TIMEOUT - EARLY <= heard[0].at - watch.talked_at <= KEEPALIVE_TIMEOUT + LATE


@pytest.mark.scenario("paper, 6.5: keepalive", "paper, 5.1: silence is a virtue", "kernel timers.c")
def test_wire_a_keepalive_causes_no_keepalive(watch: Watch) -> None:
    """A program that receives only keepalives, and has nothing to send, sends nothing."""
    assert watch.of(watch.listener) == []


@pytest.mark.scenario("paper, 6.5: a dead peer", "kernel timers.c, wg_expired_new_handshake")
def test_wire_unanswered_data_causes_a_new_handshake(watch: Watch) -> None:
    """15 seconds (and up to 1/3 s of jitter) after data that got no answer, the program starts a handshake."""
    heard = watch.of(watch.vanished)
    assert {received.kind for received in heard} == {MESSAGE_INITIATION}
    silence = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
    assert silence - EARLY <= heard[0].at - watch.vanished_at <= silence + RETRANSMIT_JITTER + LATE


@pytest.mark.scenario("wg(8): persistent-keepalive", "kernel timers.c, wg_expired_send_persistent_keepalive")
def test_wire_a_persistent_keepalive_comes_at_its_interval(watch: Watch) -> None:
    """With an interval of 3 seconds, and nothing else to send, a keepalive is sent every 3 seconds."""
    heard = watch.of(watch.persistent)
    assert all(received.is_keepalive for received in heard)
    gaps = [after.at - before.at for before, after in pairwise(heard)]
    assert len(gaps) >= 3
    assert all(PERSISTENT - EARLY <= gap <= PERSISTENT + LATE for gap in gaps), gaps
    assert {received.kind for received in heard} == {MESSAGE_TRANSPORT}
