"""A flood of handshakes: what is refused without a cookie, what is handled all the same, and what is remembered."""

from __future__ import annotations

from random import Random

import pytest

from wgpy.constants import COOKIE_REPLY_SIZE, INITIATION_SIZE
from wgpy.device.effects import DropReason, Effects
from wgpy.device.gate import Gate
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
    gate: Gate,
    message: bytes,
    now: float = 1.0,
    source: Endpoint = HERE,
    effects: Effects | None = None,
    *,
    under_load: bool = True,
) -> DropReason | None:
    return gate.refusal(memoryview(message), source, now, effects or Effects(), under_load=under_load)


def take_cookie(gate: Gate, stamp: CookieStamp, now: float) -> None:
    effects = Effects()
    assert ask(gate, stamp.stamp(MESSAGE, now), now, effects=effects) is DropReason.UNDER_LOAD
    (reply,) = effects.transmits
    assert len(reply.datagrams.view) == COOKIE_REPLY_SIZE
    assert reply.endpoint == HERE
    assert stamp.consume_reply(bytes(reply.datagrams.view), now)


def test_without_load_a_right_mac1_is_enough(gate: Gate, stamp: CookieStamp) -> None:
    assert ask(gate, stamp.stamp(MESSAGE, 1.0), under_load=False) is None
    assert ask(gate, bytes(INITIATION_SIZE), under_load=False) is DropReason.INVALID_MAC1


def test_nobody_can_use_up_the_budget_of_an_address_that_is_not_theirs(gate: Gate, stamp: CookieStamp) -> None:
    """Not even a sender that shares a peer's address or forges it."""
    message = CookieStamp(PUBLIC).stamp(MESSAGE, 1.0)
    for number in range(1000):
        source = Endpoint(HERE.host, 1024 + number % 7)
        assert ask(gate, message, source=source) is DropReason.UNDER_LOAD, "answered by a cookie"
    take_cookie(gate, stamp, 1.0)
    assert ask(gate, stamp.stamp(MESSAGE, 1.0)) is None


def test_only_a_source_that_has_shown_a_cookie_is_rate_limited(gate: Gate, stamp: CookieStamp) -> None:
    take_cookie(gate, stamp, 1.0)
    message = stamp.stamp(MESSAGE, 1.0)
    assert [ask(gate, message) for _ in range(7)] == 5 * [None] + 2 * [DropReason.RATE_LIMITED]


def test_a_wrong_cookie_is_answered_by_a_new_one(gate: Gate, stamp: CookieStamp) -> None:
    message = stamp.stamp(MESSAGE, 1.0)[:-16] + b"\1" * 16
    assert ask(gate, message) is DropReason.UNDER_LOAD


def test_nothing_is_remembered_for_an_unproven_address(gate: Gate) -> None:
    """Otherwise a flood from many addresses would fill the tables, and full tables refuse everybody."""
    message = CookieStamp(PUBLIC).stamp(MESSAGE, 1.0)
    for number in range(2000):
        ask(gate, message, source=Endpoint(f"198.51.{number >> 8}.{number & 255}", 9))
    assert not gate._by_address._buckets
    assert not gate._by_handshake._buckets
