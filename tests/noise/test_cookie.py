"""Macs and cookies (paper, 5.3): wireguard-go's TestCookieMAC1, and what that does not test."""

from __future__ import annotations

from random import Random

import pytest

from wgpy.constants import COOKIE_REPLY_SIZE, INITIATION_SIZE
from wgpy.keys import PublicKey
from wgpy.noise.cookie import CookieChecker, CookieStamp

PUBLIC = PublicKey(bytes(range(32)))
HERE = bytes((192, 0, 2, 1)) + (51820).to_bytes(2, "big")
NEIGHBOUR = HERE[:4] + (51821).to_bytes(2, "big")  # behind the same NAT
RANDOM = Random(5).randbytes
MESSAGE = b"\1\0\0\0" + bytes(INITIATION_SIZE - 4 - 32)


@pytest.fixture
def checker() -> CookieChecker:
    return CookieChecker(PUBLIC)


@pytest.fixture
def stamp() -> CookieStamp:
    return CookieStamp(PUBLIC)


def exchange(checker: CookieChecker, stamp: CookieStamp, now: float) -> None:
    """Send a message, and have it answered with a cookie."""
    reply = checker.create_reply(stamp.stamp(MESSAGE, now), 7, HERE, now, RANDOM)
    assert stamp.consume_reply(reply, now)


def test_mac1_shows_that_the_sender_knows_the_public_key(checker: CookieChecker, stamp: CookieStamp) -> None:
    stamped = stamp.stamp(MESSAGE, 0.0)
    assert len(stamped) == INITIATION_SIZE
    assert checker.verify_mac1(stamped)
    assert not CookieChecker(PublicKey(b"x" * 32)).verify_mac1(stamped)
    for position in (0, 50, 115, 116, 131):
        spoilt = bytearray(stamped)
        spoilt[position] ^= 1
        assert not checker.verify_mac1(bytes(spoilt))


def test_without_a_cookie_mac2_is_zero_and_not_accepted(checker: CookieChecker, stamp: CookieStamp) -> None:
    stamped = stamp.stamp(MESSAGE, 0.0)
    assert stamped[-16:] == bytes(16)
    assert not checker.verify_mac2(stamped, HERE, 0.0, RANDOM)


def test_a_cookie_is_good_for_its_address_and_port(checker: CookieChecker, stamp: CookieStamp) -> None:
    exchange(checker, stamp, 1.0)
    stamped = stamp.stamp(MESSAGE, 2.0)
    assert checker.verify_mac1(stamped)
    assert checker.verify_mac2(stamped, HERE, 2.0, RANDOM)
    assert not checker.verify_mac2(stamped, NEIGHBOUR, 2.0, RANDOM)
    assert not checker.verify_mac2(stamped, bytes(16) + HERE[4:], 2.0, RANDOM)


def test_a_reply_is_64_bytes_and_names_the_receiver(checker: CookieChecker, stamp: CookieStamp) -> None:
    reply = checker.create_reply(stamp.stamp(MESSAGE, 0.0), 0x01020304, HERE, 0.0, RANDOM)
    assert len(reply) == COOKIE_REPLY_SIZE
    assert reply[:8] == b"\3\0\0\0\4\3\2\1"


def test_a_reply_must_answer_the_message_stamped_last(checker: CookieChecker, stamp: CookieStamp) -> None:
    first = checker.create_reply(stamp.stamp(MESSAGE, 0.0), 7, HERE, 0.0, RANDOM)
    stamp.stamp(MESSAGE[:-1] + b"2", 0.0)
    assert not stamp.consume_reply(first, 0.0)
    assert stamp.stamp(MESSAGE, 0.0)[-16:] == bytes(16)


def test_nobody_but_the_responder_makes_a_reply(stamp: CookieStamp) -> None:
    forger = CookieChecker(PublicKey(b"f" * 32))
    assert not stamp.consume_reply(forger.create_reply(stamp.stamp(MESSAGE, 0.0), 7, HERE, 0.0, RANDOM), 0.0)


def test_a_message_is_answered_by_at_most_one_cookie(checker: CookieChecker, stamp: CookieStamp) -> None:
    reply = checker.create_reply(stamp.stamp(MESSAGE, 0.0), 7, HERE, 0.0, RANDOM)
    assert stamp.consume_reply(reply, 0.0)
    assert not stamp.consume_reply(reply, 0.0)
    assert not CookieStamp(PUBLIC).consume_reply(reply, 0.0)


@pytest.mark.parametrize("position", [8, 31, 32, 63])
def test_a_corrupted_reply_is_refused_and_the_true_one_is_still_accepted(
    checker: CookieChecker, stamp: CookieStamp, position: int
) -> None:
    reply = checker.create_reply(stamp.stamp(MESSAGE, 0.0), 7, HERE, 0.0, RANDOM)
    spoilt = bytearray(reply)
    spoilt[position] ^= 1
    assert not stamp.consume_reply(bytes(spoilt), 0.0)
    assert stamp.consume_reply(reply, 0.0)


def test_a_cookie_is_used_for_115_seconds(checker: CookieChecker, stamp: CookieStamp) -> None:
    exchange(checker, stamp, 10.0)
    assert checker.verify_mac2(stamp.stamp(MESSAGE, 10.0 + 114.9), HERE, 10.0 + 114.9, RANDOM)
    assert stamp.stamp(MESSAGE, 10.0 + 115.0)[-16:] == bytes(16)


def test_the_secret_changes_after_two_minutes(checker: CookieChecker, stamp: CookieStamp) -> None:
    exchange(checker, stamp, 10.0)
    stamped = stamp.stamp(MESSAGE, 11.0)
    assert checker.verify_mac2(stamped, HERE, 10.0 + 120.0, RANDOM)
    assert not checker.verify_mac2(stamped, HERE, 10.0 + 120.1, RANDOM)
