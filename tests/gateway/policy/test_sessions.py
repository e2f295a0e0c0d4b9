"""The life of a session, on a clock that the test turns."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from wgpy.gateway.policy.sessions import Ask, Close, Effect, Log, Open, Reason, Session, State, Step, Terms, Traffic

ADDRESSES = (ip_address("10.99.0.2"), ip_address("fd00:99::2"))
HOUR = 3600.0
TERMS = Terms(addresses=ADDRESSES, session_max=8 * HOUR)
ASKING = replace(TERMS, ask_handler=True)


def begin(terms: Terms = TERMS, now: float = 100.0) -> Step:
    return Session.begin("s1", "phone", terms, now)


def closed(reason: Reason, step: Step) -> bool:
    effects: tuple[Effect, ...] = (Close(ADDRESSES), Log())
    return (step.session.state, step.session.reason, step.effects) == (State.ENDED, reason, effects)


def test_without_a_handler_a_session_is_active_at_once_and_ends_after_session_max() -> None:
    session, effects = begin()
    assert session.state is State.ACTIVE
    assert effects == (Open(ADDRESSES, 100 + 8 * HOUR), Log())
    assert session.judge(TERMS, 99 + 8 * HOUR) == Step(session)
    assert closed(Reason.EXPIRED, session.judge(TERMS, 100 + 8 * HOUR))


def test_a_shorter_session_max_applies_to_sessions_that_are_under_way() -> None:
    session, _ = begin()
    shorter = replace(TERMS, session_max=HOUR)
    moved, effects = session.judge(shorter, 200)
    assert effects == (Open(ADDRESSES, 100 + HOUR),)
    assert closed(Reason.EXPIRED, moved.judge(shorter, 100 + HOUR))
    assert closed(Reason.EXPIRED, session.judge(shorter, 100 + 2 * HOUR))


def test_a_longer_session_max_applies_too() -> None:
    session, _ = begin()
    assert session.judge(replace(TERMS, session_max=24 * HOUR), 200).effects == (Open(ADDRESSES, 100 + 24 * HOUR),)


def test_a_session_waits_for_the_handler_and_passes_nothing_meanwhile() -> None:
    pending, effects = begin(ASKING)
    assert pending.state is State.PENDING
    assert effects == (Ask(),)
    session, effects = pending.answered(allow=True, message="", posture=("compliant",), terms=ASKING, now=110)
    assert session.state is State.ACTIVE
    assert session.posture == ("compliant",)
    assert effects == (Open(ADDRESSES, 100 + 8 * HOUR), Log())


def test_a_denial_or_a_missing_answer_ends_a_pending_session() -> None:
    pending, _ = begin(ASKING)
    denied = pending.answered(allow=False, message="update your phone", posture=(), terms=ASKING, now=110)
    assert (denied.session.reason, denied.session.message, denied.effects) == (
        Reason.DENIED,
        "update your phone",
        (Log(),),
    )
    late = pending.failed(Reason.HANDLER_TIMEOUT, 130)
    assert (late.session.reason, late.effects) == (Reason.HANDLER_TIMEOUT, (Log(),))
    assert late.session.answered(allow=True, message="", posture=(), terms=ASKING, now=131).effects == ()


def test_a_change_while_the_handler_decides_counts() -> None:
    pending, _ = begin(ASKING)
    disabled = replace(ASKING, refusal=Reason.USER_DISABLED)
    step = pending.answered(allow=True, message="", posture=(), terms=disabled, now=110)
    assert (step.session.reason, step.effects) == (Reason.USER_DISABLED, (Log(),))


@pytest.mark.parametrize("reason", [Reason.USER_DISABLED, Reason.USER_EXPIRED, Reason.DEVICE_DISABLED])
def test_a_refusal_ends_a_session_and_prevents_new_ones(reason: Reason) -> None:
    refused = replace(TERMS, refusal=reason)
    session, _ = begin()
    assert closed(reason, session.judge(refused, 101))
    step = begin(refused)
    assert (step.session.state, step.session.reason, step.effects) == (State.ENDED, reason, (Log(),))


def test_an_idle_session_ends_and_traffic_in_either_direction_keeps_it() -> None:
    terms = replace(TERMS, idle_max=60.0)
    session, _ = begin(terms)
    session = session.measured(Traffic(ingress_bytes=1, ingress_packets=1), 150)
    session = session.measured(Traffic(ingress_bytes=1, ingress_packets=1), 170)  # nothing new
    assert session.judge(terms, 209) == Step(session)
    assert closed(Reason.IDLE, session.judge(terms, 210))
    session = session.measured(Traffic(1, 1, 1, 1), 205)
    assert session.judge(terms, 264).effects == ()


def test_an_address_that_is_no_longer_the_devices_ends_the_session() -> None:
    session, _ = begin()
    assert closed(Reason.ADDRESS_CHANGED, session.judge(replace(TERMS, addresses=ADDRESSES[:1]), 101))


def test_a_session_lasts_session_max_from_the_sign_in_and_needs_one() -> None:
    signed_in = replace(TERMS, signed_in_at=50.0)
    session, effects = begin(signed_in)
    assert effects[0] == Open(ADDRESSES, 50 + 8 * HOUR)
    assert closed(Reason.EXPIRED, session.judge(signed_in, 50 + 8 * HOUR))
    again = begin(signed_in, 51 + 8 * HOUR)
    assert (again.session.reason, again.effects) == (Reason.NOT_SIGNED_IN, (Log(),))
    assert begin(replace(TERMS, refusal=Reason.NOT_SIGNED_IN)).session.state is State.ENDED


def test_an_ended_session_stays_ended() -> None:
    session, _ = begin()
    ended = session.ended(Reason.TERMINATED, 120, "by root")
    assert closed(Reason.TERMINATED, ended)
    assert ended.session.message == "by root"
    assert ended.session.judge(TERMS, 1e9) == Step(ended.session)
    assert ended.session.ended(Reason.IDLE, 130) == Step(ended.session)
    assert ended.session.failed(Reason.HANDLER_TIMEOUT, 130) == Step(ended.session)
