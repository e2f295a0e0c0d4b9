"""On the wire: handshakes.

Drivers speak to the program's port, datagram by datagram. What must not be answered is followed by an honest ping,
whose answer shows that the program has dealt with it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.interop.conftest import packets_kept
from tests.interop.wire import Subject, opened
from tests.support.wire import Driver
from wgpy.constants import MESSAGE_INITIATION, MESSAGE_RESPONSE, MESSAGE_TRANSPORT, RESPONSE_SIZE
from wgpy.noise.cookie import CookieChecker

pytestmark = [pytest.mark.root, pytest.mark.wire]


@pytest.fixture(scope="module")
def open_subject(
    request: pytest.FixtureRequest, program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    with opened(request, program, tmp_path_factory.mktemp("wire")) as subject:
        yield subject


@pytest.fixture
def subject(request: pytest.FixtureRequest, open_subject: Subject) -> Iterator[Subject]:
    with packets_kept(request, open_subject.cable):
        yield open_subject


@pytest.fixture
def driver(subject: Subject) -> Driver:
    """A peer with a session, which the program could not begin: it does not know where the peer is."""
    driver = subject.driver(endpoint=False)
    driver.handshake()
    return driver


def flipped(message: bytes, at: int) -> bytes:
    """With one bit changed."""
    return message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]


@pytest.mark.scenario("paper, 5.4.2: first message", "paper, 5.4.3: second message")
def test_wire_an_initiation_is_answered(subject: Subject) -> None:
    """An initiation of 148 bytes is answered by a response of 92 that bears its index and a right mac1."""
    driver = subject.driver(endpoint=False)
    initiation = driver.initiation()
    driver.send(initiation)
    response = driver.next(MESSAGE_RESPONSE)
    assert len(response.data) == RESPONSE_SIZE
    assert response.data[8:12] == initiation[4:8]
    assert CookieChecker(driver.public_key).verify_mac1(response.data)
    driver.complete(response)
    assert driver.exchange() == []


@pytest.mark.scenario("paper, 5.1: silence is a virtue", "paper, 5.4.4: mac1", "kernel cookie.c")
def test_wire_a_wrong_mac1_is_not_answered(driver: Driver) -> None:
    """An initiation whose mac1 is wrong, wherever one of its bits was changed, is not answered."""
    wrong = [flipped(driver.initiation(), at) for at in (4, 8, 40, 90, 115, 116, 131)]
    assert driver.exchange(*wrong) == []


@pytest.mark.scenario("paper, 5.1: silence is a virtue", "kernel receive.c, wg_receive_handshake_packet")
def test_wire_a_stranger_is_not_answered(subject: Subject, driver: Driver) -> None:
    """An initiation from a key that is no peer's, though its mac1 is right, is not answered."""
    stranger = subject.stranger()
    stranger.send(stranger.initiation())
    assert driver.exchange() == []
    assert stranger.heard(0) == []


@pytest.mark.scenario("paper, 5.4.2: first message", "kernel noise.c, wg_noise_handshake_consume_initiation")
def test_wire_an_initiation_that_was_tampered_with_is_not_answered(driver: Driver) -> None:
    """Changes to the ephemeral key, the static key or the timestamp under a right mac1 are noticed.

    They change nothing: an honest initiation is answered afterwards.
    """
    tampered = [driver.with_macs(flipped(driver.initiation(), at)) for at in (8, 41, 88, 115)]
    assert driver.exchange(*tampered) == []
    driver.handshake()


@pytest.mark.scenario("paper, 5.1: replay by timestamps", "kernel noise.c, wg_noise_handshake_consume_initiation")
def test_wire_an_initiation_is_answered_once(subject: Subject) -> None:
    """An initiation that is sent again is not answered, and neither is one that is older than the last accepted."""
    driver = subject.driver(endpoint=False)
    older, newer = driver.initiation(), driver.initiation()
    driver.send(newer)
    driver.complete(driver.next(MESSAGE_RESPONSE))
    driver.exchange()
    assert driver.exchange(newer, older, newer) == []


@pytest.mark.scenario("paper, 5.4.2 and 5.4.3: sizes", "kernel receive.c, prepare_skb_header")
def test_wire_handshake_messages_of_another_size_are_not_answered(driver: Driver) -> None:
    """Initiations that are cut short or prolonged, even with a right mac1 at their end, are not answered."""
    initiation = driver.initiation()
    wrong = [initiation[:size] for size in (0, 1, 3, 4, 8, 100, 116, 147)] + [initiation + b"\0", initiation * 8]
    wrong += [driver.with_macs(driver.initiation() + bytes(16)), driver.with_macs(initiation[:-16])]
    assert driver.exchange(*wrong) == []


@pytest.mark.scenario("paper, 5.4.2: reserved zero bytes", "kernel receive.c, SKB_TYPE_LE32")
def test_wire_unknown_types_are_not_answered(driver: Driver) -> None:
    """Datagrams whose type is unknown, or whose three reserved bytes are not zero, are not answered."""
    initiation = driver.initiation()
    wrong = [driver.with_macs(struct.pack("<I", kind) + initiation[4:]) for kind in (0, 5, 255, 0x101, 0x1000001)]
    ping, sequence = driver.ping()
    assert driver.exchange(*wrong, flipped(ping, 1), os.urandom(148)) == []
    assert driver.echoes(ping) == [sequence]


@pytest.mark.scenario("paper, 5.4.3: second message", "kernel noise.c, wg_noise_handshake_consume_response")
def test_wire_an_unsolicited_response_is_ignored(driver: Driver) -> None:
    """A response to an initiation that was never sent is not answered, whatever index it names, and changes nothing."""
    forged = driver.with_macs(struct.pack("<III", MESSAGE_RESPONSE, 1, 2) + os.urandom(48) + bytes(32))
    at_a_session = driver.with_macs(
        struct.pack("<III", MESSAGE_RESPONSE, 1, driver.session.remote_index) + os.urandom(48) + bytes(32)
    )
    assert driver.exchange(forged, at_a_session) == []


@pytest.mark.scenario("paper, 5.4.3: second message", "paper, 5.4.4: mac1")
def test_wire_only_the_right_response_makes_a_session(subject: Subject) -> None:
    """When the program began, responses with a wrong mac1, a wrong index or a wrong tag are ignored.

    The right one that follows completes the same handshake, and the program confirms it at once.
    """
    driver = subject.driver()
    subject.ping(driver)
    response = driver.response(driver.next(MESSAGE_INITIATION))
    wrong = [flipped(response, 70), *(driver.with_macs(flipped(response, at)) for at in (8, 12, 50))]
    driver.send(*wrong)
    assert [received.kind for received in driver.heard(0.3)] == []
    driver.send(response)
    driver.opened(driver.next(MESSAGE_TRANSPORT))
    driver.heard(0.3)  # the ping, if a keepalive came before it
    assert driver.echoes(response) == []


@pytest.mark.scenario("paper, 6.3: key rotation", "kernel noise.c, begin_session")
def test_wire_a_responder_sends_no_data_before_the_session_is_confirmed(subject: Subject) -> None:
    """A program that has answered an initiation sends no transport data until it has received some.

    Otherwise a replayed response would have it send to a session that the initiator does not have.
    """
    driver = subject.driver()
    driver.send(driver.initiation())
    response = driver.next(MESSAGE_RESPONSE)
    subject.ping(driver)
    assert MESSAGE_TRANSPORT not in [received.kind for received in driver.heard(0.5)]
    driver.complete(response)
    driver.exchange()


@pytest.mark.scenario("paper, 6.3: key rotation", "kernel noise.c, wg_noise_received_with_keypair")
def test_wire_the_previous_session_still_works(driver: Driver) -> None:
    """After a new handshake, data that was sealed under the session before is still accepted, as it may be late."""
    late, sequence = driver.ping()
    driver.handshake()
    driver.exchange()
    assert driver.echoes(late) == [sequence]


@pytest.mark.scenario("paper, 5.4: ephemeral keys and indices", "kernel peerlookup.c")
def test_wire_each_handshake_has_its_own_keys_and_indices(subject: Subject) -> None:
    """No two responses bear the same ephemeral key or sender index, and indices do not count up."""
    driver = subject.driver(endpoint=False)
    responses = []
    for _ in range(6):
        driver.heard(0.03)  # more than the 20 ms that the kernel wants between two initiations
        driver.send(driver.initiation())
        responses.append(driver.next(MESSAGE_RESPONSE).data)
    indices = [int.from_bytes(response[4:8], "little") for response in responses]
    assert len({response[12:44] for response in responses}) == 6
    assert len(set(indices)) == 6
    assert any(abs(after - before) > 0xFFFF for before, after in pairwise(indices))
