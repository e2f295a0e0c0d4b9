"""The under-load test: 512 waiting, and for a second after."""

from __future__ import annotations

from wgpy.device.load import LOADED_RATE, QUEUE_LIMIT, QUEUE_UNDER_LOAD, SERVICE_RATE, LoadMeter


def test_the_512th_of_a_sudden_crowd_finds_load() -> None:
    meter = LoadMeter()
    assert [meter.arrived(1.0) for _ in range(QUEUE_UNDER_LOAD)] == [False] * (QUEUE_UNDER_LOAD - 1) + [True]


def test_load_lasts_one_second_after_the_queue_was_long() -> None:
    meter = LoadMeter()
    for _ in range(QUEUE_UNDER_LOAD):
        meter.arrived(1.0)
    assert meter.arrived(1.999)
    assert not meter.arrived(2.001)


def test_what_one_core_can_answer_is_no_load() -> None:
    meter = LoadMeter()
    assert not any(meter.arrived(i / SERVICE_RATE) for i in range(4 * QUEUE_LIMIT))


def test_load_ends_when_fewer_come_than_are_handled() -> None:
    meter = LoadMeter()
    for _ in range(QUEUE_LIMIT):
        meter.arrived(now := 1.0)
    for rate, is_loaded in ((2 * LOADED_RATE, True), (SERVICE_RATE, False)):
        for _ in range(QUEUE_LIMIT):
            meter.arrived(now := now + 1 / rate)
        assert meter.is_present(now) is is_loaded


def test_a_flood_is_forgotten_as_fast_as_a_full_queue_drains() -> None:
    meter = LoadMeter()
    for _ in range(10 * QUEUE_LIMIT):
        meter.arrived(1.0)
    assert not meter.arrived(1.0 + QUEUE_LIMIT / SERVICE_RATE + 1)
