"""The search for the highest rate without loss."""

from __future__ import annotations

import pytest

from benchmarks.datagrams import PRECISION, fastest


@pytest.mark.parametrize("capacity", [3.0, 90.0, 300.0, 2500.0])
@pytest.mark.parametrize("step", [1.2, 1.7])
def test_the_search_comes_near_the_capacity_and_never_exceeds_it(capacity: float, step: float) -> None:
    def trial(rate: float) -> tuple[float, float]:
        return min(rate, capacity), max(0.0, 1 - capacity / rate)

    if 0.1 < capacity / 300 < 9:
        assert capacity / PRECISION <= fastest(trial, 300.0, step) <= capacity
    else:
        assert 0 <= fastest(trial, 300.0, step) <= capacity  # it gives up after so many trials


def test_a_single_loss_does_not_end_the_search() -> None:
    outcomes = iter([(250.0, 0.2), (300.0, 0.0), (400.0, 0.0)])
    assert fastest(lambda rate: next(outcomes), 300.0, 1.7) == 400.0


def test_a_sender_at_its_limit_ends_the_search() -> None:
    rates = []

    def trial(rate: float) -> tuple[float, float]:
        rates.append(rate)
        return min(rate, 350.0), 0.0

    assert fastest(trial, 300.0, 1.7) == 350.0
    assert len(rates) == 2


def test_the_result_is_0_if_no_rate_arrives() -> None:
    assert fastest(lambda rate: (rate / 2, 0.5), 300.0, 1.7) == 0
