"""A socket is under load by the number of waiting messages, times the time of one, and for a second after that."""

from __future__ import annotations

import pytest

from wgpy.device.load import FULL_SHARE, LONGEST_WAIT, LoadMeter

CAPACITY = 10_000


def slow(seconds: float) -> LoadMeter:
    """A meter for messages that take so long each."""
    meter = LoadMeter()
    for _ in range(100):
        meter.handled(100, 100 * seconds)
    return meter


def test_a_queue_is_under_load_when_it_is_half_full() -> None:
    meter = LoadMeter()
    assert not meter.is_present(FULL_SHARE * CAPACITY, CAPACITY, 1.0)
    assert meter.is_present(FULL_SHARE * CAPACITY + 1, CAPACITY, 1.0)


@pytest.mark.parametrize("each", [0.0001, 0.001, 0.01])
def test_a_queue_is_under_load_when_its_work_takes_too_long_on_this_machine(each: float) -> None:
    meter, bearable = slow(each), LONGEST_WAIT / each
    assert not meter.is_present(0.9 * bearable, 100 * bearable, 1.0)
    assert meter.is_present(1.1 * bearable, 100 * bearable, 1.0)


def test_load_lasts_one_second_after_the_queue_was_long() -> None:
    meter = LoadMeter()
    assert meter.is_present(CAPACITY, CAPACITY, 1.0)
    assert meter.is_present(0, CAPACITY, 1.999)
    assert not meter.is_present(0, CAPACITY, 2.001)


def test_many_handshakes_without_a_queue_are_not_load() -> None:
    """One core can handle two thousand from one address, 64 at a time."""
    meter = LoadMeter()
    for _ in range(10_000):
        assert not meter.is_present(64, CAPACITY, 1.0)
        meter.handled(64, 64 * 100e-6)


def test_one_long_pause_is_not_load() -> None:
    meter = LoadMeter()
    meter.handled(1, 0.05)  # a library is imported
    assert not meter.is_present(1000, CAPACITY, 1.0)


def test_the_estimate_adapts_when_the_machine_becomes_faster() -> None:
    meter = slow(0.01)
    assert meter.is_present(300, CAPACITY, 1.0)
    for _ in range(100):
        meter.handled(100, 100 * 0.0001)
    assert not meter.is_present(300, CAPACITY, 3.0)
