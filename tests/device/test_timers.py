"""A table of all that arms, cancels and fires each timer (kernel timers.c)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from wgpy.device.timers import NEVER, Timer, Timers

NO_JITTER = bytes(2)
FULL_JITTER = b"\xff\xff"


def running(jitter: bytes = NO_JITTER) -> Timers:
    timers = Timers(lambda n: jitter)
    timers.start()
    return timers


def test_sent_data_arms_the_new_handshake_timer_once() -> None:
    timers = running()
    timers.sent(100.0, data=True)
    timers.sent(110.0, data=True)
    assert timers.new_handshake_at == 115.0


def test_jitter_is_at_most_a_third_of_a_second() -> None:
    timers = running(FULL_JITTER)
    timers.sent(100.0, data=True)
    timers.handshake_initiated(100.0)
    assert 115.33 < timers.new_handshake_at < 115.0 + 1 / 3
    assert 105.33 < timers.retransmit_handshake_at < 105.0 + 1 / 3


def test_first_data_received_arms_the_keepalive_and_more_data_asks_for_another() -> None:
    timers = running()
    timers.received(100.0, data=1)
    assert (timers.send_keepalive_at, timers.need_another_keepalive) == (110.0, False)
    timers.received(105.0, data=1)
    assert (timers.send_keepalive_at, timers.need_another_keepalive) == (110.0, True)
    assert timers.pop_due(110.0) is Timer.SEND_KEEPALIVE
    timers.keepalive_fired(110.0)
    assert (timers.send_keepalive_at, timers.need_another_keepalive) == (120.0, False)
    assert timers.pop_due(120.0) is Timer.SEND_KEEPALIVE
    timers.keepalive_fired(120.0)
    assert timers.send_keepalive_at == NEVER


def test_anything_authenticated_sent_cancels_the_keepalive() -> None:
    timers = running()
    timers.received(100.0, data=1)
    timers.sent(101.0, data=False)
    assert timers.send_keepalive_at == NEVER


def test_anything_authenticated_received_cancels_the_new_handshake_timer() -> None:
    timers = running()
    timers.sent(100.0, data=True)
    timers.received(101.0, data=0)
    assert timers.new_handshake_at == NEVER


def test_an_initiation_arms_its_retransmission_anew() -> None:
    timers = running()
    timers.handshake_initiated(100.0)
    timers.handshake_initiated(103.0)
    assert timers.retransmit_handshake_at == 108.0


def test_a_completed_handshake_cancels_retransmission_and_resets_the_attempts() -> None:
    timers = running()
    timers.handshake_initiated(100.0)
    timers.handshake_attempts = 7
    timers.sent_lastminute_handshake = True
    timers.handshake_complete()
    assert timers.retransmit_handshake_at == NEVER
    assert (timers.handshake_attempts, timers.sent_lastminute_handshake) == (0, False)


def test_keys_are_erased_540_seconds_after_the_oldest_were_derived() -> None:
    timers = running()
    timers.session_derived(100.0)
    timers.session_derived(200.0)
    assert timers.zero_key_material_at == 740.0


@pytest.mark.parametrize("hook", [partial(Timers.sent, data=False), partial(Timers.received, data=0)])
@pytest.mark.parametrize(("interval", "expected"), [(0, NEVER), (25, 125.0)])
def test_anything_authenticated_rearms_the_persistent_keepalive_only_if_there_is_one(
    hook: Callable[[Timers, float], None], interval: int, expected: float
) -> None:
    timers = running()
    timers.persistent_keepalive = interval
    hook(timers, 100.0)
    assert timers.persistent_keepalive_at == expected


def test_giving_up_leaves_pending_erasure_alone_but_arms_a_missing_one() -> None:
    timers = running()
    timers.send_keepalive_at = 105.0
    timers.handshake_abandoned(100.0)
    assert (timers.send_keepalive_at, timers.zero_key_material_at) == (NEVER, 640.0)
    timers.handshake_abandoned(200.0)
    assert timers.zero_key_material_at == 640.0


def test_nothing_is_armed_while_the_interface_is_down() -> None:
    timers = Timers(lambda n: NO_JITTER)
    timers.persistent_keepalive = 1
    timers.sent(1.0, data=True)
    timers.received(1.0, data=1)
    timers.handshake_initiated(1.0)
    timers.session_derived(1.0)
    timers.handshake_abandoned(1.0)
    assert timers.next_at() == NEVER


def test_stopping_cancels_all() -> None:
    timers = running()
    timers.persistent_keepalive = 1
    timers.sent(1.0, data=True)
    timers.received(1.0, data=1)
    timers.handshake_initiated(1.0)
    timers.session_derived(1.0)
    timers.stop()
    assert timers.next_at() == NEVER


def test_due_timers_fire_in_the_order_of_their_deadlines_and_only_once() -> None:
    timers = running()
    timers.persistent_keepalive = 7
    timers.sent(100.0, data=True)
    timers.send_keepalive_at = 110.0  # which sending cancels, as receiving cancels the wait for an answer
    timers.handshake_initiated(100.0)
    timers.session_derived(100.0)
    assert timers.pop_due(104.9) is None
    fired = []
    while (timer := timers.pop_due(1000.0)) is not None:
        fired.append(timer)
    assert fired == [
        Timer.RETRANSMIT_HANDSHAKE,
        Timer.PERSISTENT_KEEPALIVE,
        Timer.SEND_KEEPALIVE,
        Timer.NEW_HANDSHAKE,
        Timer.ZERO_KEY_MATERIAL,
    ]
