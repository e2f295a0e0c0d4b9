"""How long a sign-in lasts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wgpy.gateway.policy.logins import FRESH, IDLE_MAX, LIFETIME, SEEN_EVERY, Login

LOGIN = Login(id="00", user="alice", made_at=1000.0, seen_at=1000.0, strength="passkey", address="192.0.2.1")


@pytest.mark.parametrize(
    ("seen_at", "wall", "over"),
    [
        (1000, 1000, False),
        (1000, 1000 + IDLE_MAX - 1, False),
        (1000, 1000 + IDLE_MAX, True),
        (900 + LIFETIME, 999 + LIFETIME, False),
        (900 + LIFETIME, 1000 + LIFETIME, True),
        (1000 + IDLE_MAX, 1000 + IDLE_MAX - SEEN_EVERY, False),  # another gateway's clock is a little ahead
        (1000 + IDLE_MAX, 1000 + IDLE_MAX - SEEN_EVERY - 1, True),  # set back
    ],
)
def test_a_sign_in_ends_when_it_is_idle_or_old(seen_at: float, wall: float, over: bool) -> None:
    assert replace(LOGIN, seen_at=seen_at).is_over(wall) is over


def test_only_a_fresh_sign_in_may_change_how_one_signs_in() -> None:
    used = replace(LOGIN, seen_at=1000 + FRESH)
    assert used.is_fresh(1000 + FRESH - 1)
    assert not used.is_fresh(1000 + FRESH)


def test_the_last_request_is_recorded_once_a_minute() -> None:
    assert not LOGIN.is_seen_late(1000 + SEEN_EVERY - 1)
    assert LOGIN.is_seen_late(1000 + SEEN_EVERY)
