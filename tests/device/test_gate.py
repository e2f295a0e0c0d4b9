"""Under a flood of handshakes: what is refused without a hash, and who is heard all the same."""

from __future__ import annotations

from random import Random

import pytest

from wgpy.burst import Datagrams
from wgpy.constants import COOKIE_REPLY_SIZE, INITIATION_SIZE
from wgpy.device.effects import DropReason, Effects, Transmit
from wgpy.device.gate import Gate
from wgpy.device.load import QUEUE_LIMIT, QUEUE_UNDER_LOAD
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey
from wgpy.noise.cookie import CookieStamp

PUBLIC = PublicKey(bytes(range(32)))
HERE = Endpoint("192.0.2.1", 51820)
MESSAGE = b"\1\0\0\0" + bytes(INITIATION_SIZE - 4 - 32)


@pytest.fixture
def gate() -> Gate:
    return Gate(PUBLIC, Random(5).randbytes)


@pytest.fixture
def stamp() -> CookieStamp:
    return CookieStamp(PUBLIC)


def ask(
    gate: Gate, message: bytes, now: float, source: Endpoint = HERE, effects: Effects | None = None
) -> DropReason | None:
    return gate.refusal(memoryview(message), source, now, effects or Effects())


def crowd(gate: Gate, count: int, now: float) -> None:
    message = CookieStamp(PUBLIC).stamp(MESSAGE, now)
    for number in range(count):
        ask(gate, message, now, Endpoint(f"198.51.{number >> 8}.{number & 255}", 9))


def take_cookie(gate: Gate, stamp: CookieStamp, now: float) -> None:
    effects = Effects()
    assert ask(gate, stamp.stamp(MESSAGE, now), now, effects=effects) is DropReason.UNDER_LOAD
    (reply,) = effects.transmits
    assert stamp.consume_reply(bytes(reply.datagrams.view), now)


def test_under_load_one_cookie_answers_a_burst(gate: Gate, stamp: CookieStamp) -> None:
    crowd(gate, QUEUE_UNDER_LOAD, 1.0)
    message, effects = stamp.stamp(MESSAGE, 1.0), Effects()
    refusals = [ask(gate, message, 1.0, effects=effects) for _ in range(8)]
    assert refusals == [DropReason.UNDER_LOAD] + 7 * [DropReason.RATE_LIMITED]
    assert [len(transmit.datagrams.view) for transmit in effects.transmits] == [COOKIE_REPLY_SIZE]
    assert [transmit.endpoint for transmit in effects.transmits] == [HERE]


def test_without_load_a_burst_that_was_answered_is_handled_on(gate: Gate, stamp: CookieStamp) -> None:
    effects = Effects(transmits=[Transmit(Datagrams.of(b"a response"), HERE, 0, None)])
    assert ask(gate, stamp.stamp(MESSAGE, 1.0), 1.0, effects=effects) is None


def test_an_answered_burst_is_refused_before_it_is_hashed(gate: Gate) -> None:
    crowd(gate, QUEUE_UNDER_LOAD, 1.0)
    effects = Effects(transmits=[Transmit(Datagrams.of(b"a cookie reply"), HERE, 0, None)])
    assert ask(gate, bytes(INITIATION_SIZE), 1.0, effects=effects) is DropReason.RATE_LIMITED  # its mac1 is wrong


def test_who_has_a_cookie_is_heard_however_many_have_none(gate: Gate, stamp: CookieStamp) -> None:
    crowd(gate, QUEUE_UNDER_LOAD, 1.0)
    take_cookie(gate, stamp, 1.0)
    crowd(gate, QUEUE_LIMIT, 1.1)
    assert ask(gate, stamp.stamp(MESSAGE, 1.1), 1.1) is None


def test_a_false_cookie_in_an_answered_burst_is_refused(gate: Gate, stamp: CookieStamp) -> None:
    crowd(gate, QUEUE_UNDER_LOAD, 1.0)
    message = stamp.stamp(MESSAGE, 1.0)[:-16] + b"\1" * 16
    effects = Effects()
    refusals = [ask(gate, message, 1.0, effects=effects) for _ in range(3)]
    assert refusals == [DropReason.UNDER_LOAD] + 2 * [DropReason.RATE_LIMITED]
    assert len(effects.transmits) == 1
