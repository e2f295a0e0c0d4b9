"""On the wire: under load.

A flood of initiations with a right mac1 comes from a hundred addresses, faster and faster, until the program answers
with cookies.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.interop.test_wire_handshake import open_subject as open_subject
from tests.interop.test_wire_handshake import subject as subject
from tests.interop.wire import Subject
from tests.support.wire import Driver, Received
from wgpy.constants import COOKIE_REPLY_SIZE, MAC_SIZE, MESSAGE_COOKIE_REPLY, MESSAGE_RESPONSE

pytestmark = [pytest.mark.root, pytest.mark.wire]

SOURCES = "192.0.2.128/25"
RATES = (20_000, 0)  # initiations a second; 0 is as fast as it goes
WITHIN = 20.0  # seconds at each rate: an emulated kernel loses most of what comes
PAUSE = 1.0  # seconds for an answer, which a flooded peer may take, between two initiations


@contextmanager
def flood(subject: Subject, rate: int) -> Iterator[None]:
    """From many addresses on the left, that are answered there."""
    left, right = subject.cable.left.namespace, subject.side
    left.run("ip", "route", "add", "local", SOURCES, "dev", "lo")
    victim = f"{right.public_key.base64()}@{right.outer}:{right.port}"
    command = ("nice", "-n19", sys.executable, "-m", "tests.support.flood", "initiations", victim, SOURCES)
    process = left.popen(*command, f"--rate={rate}", stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.terminate()
        process.communicate(timeout=60)
        left.run("ip", "route", "delete", "local", SOURCES, "dev", "lo")


def answer_of(driver: Driver, kind: int) -> tuple[bytes, Received] | None:
    """Send initiations until one is answered by a message of that kind: the two of them; None if none is."""
    end = time.monotonic() + WITHIN
    while time.monotonic() < end:
        initiation = driver.initiation()
        driver.send(initiation)
        for received in driver.heard(PAUSE):
            index = received.data[8:12] if received.kind == MESSAGE_RESPONSE else received.data[4:8]
            if index != initiation[4:8]:
                continue  # late
            if received.kind == kind:
                return initiation, received
            driver.handle(received.data)  # a cookie to be used with the next
    return None


@pytest.mark.scenario("paper, 5.3: denial of service and cookies", "paper, 5.4.7: cookie reply", "kernel cookie.c")
def test_wire_under_load_a_cookie_is_sent_and_accepted(subject: Subject) -> None:
    """Under load an initiation is answered by a cookie reply of 64 bytes that bears its index and opens with its mac1.

    An initiation with that cookie in its mac2 is answered by a response, while the flood goes on.
    """
    driver = subject.driver(endpoint=False)
    for rate in RATES:
        with flood(subject, rate):
            if (asked := answer_of(driver, MESSAGE_COOKIE_REPLY)) is None:
                continue
            _, reply = asked
            assert len(reply.data) == COOKIE_REPLY_SIZE
            driver.handle(reply.data)
            answered = answer_of(driver, MESSAGE_RESPONSE)
            assert answered is not None, f"no response within {WITHIN:g} s to initiations with a cookie"
            initiation, response = answered
            assert initiation[-MAC_SIZE:] != bytes(MAC_SIZE), "the cookie did not open"
            driver.complete(response)
            break
    else:
        pytest.fail(f"no cookie reply came at any of {RATES} initiations a second")
    answered = answer_of(driver, MESSAGE_RESPONSE)  # the program may be under load a little longer
    assert answered is not None, f"no response within {WITHIN:g} s after the flood"
    driver.complete(answered[1])
    driver.exchange()
