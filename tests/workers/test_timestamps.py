"""The latest timestamp that workers report: control believes it as far as it can be true."""

from __future__ import annotations

import os

from wgpy.device.device import Device
from wgpy.workers.timestamps import UNREPORTED, TimestampFloor

SECOND = 10**9  # nanoseconds
WALL = 10**18
FUTURE = 4 * 10**18


class Clocks:
    """A machine's clocks, and the floor of an interface on it."""

    def __init__(self) -> None:
        self.now, self.wall = 0.0, WALL
        self.device = Device(random=os.urandom, wall_clock=lambda: self.wall)
        self.floor = TimestampFloor(self.device, lambda: self.now, lambda: self.wall)

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.wall += int(seconds * SECOND)


def test_what_workers_send_is_believed() -> None:
    at = Clocks()
    for _ in range(5):
        at.passes(5)
        at.floor.report(at.wall)
        assert at.floor.latest == at.wall
    at.floor.report(0)
    assert at.floor.latest == at.wall


def test_a_worker_cannot_move_the_floor_into_the_future_however_often_it_tries() -> None:
    at = Clocks()
    for _ in range(1000):
        at.floor.report(FUTURE)
    assert at.floor.latest == at.wall + UNREPORTED
    at.passes(60)
    at.floor.report(FUTURE)
    assert at.floor.latest == at.wall + UNREPORTED


def test_a_restored_floor_ahead_of_the_clock_is_exceeded_only_as_time_passes() -> None:
    """A clock without a battery; an initiation to one peer every 5 seconds bears a time 17 ms later each."""
    at = Clocks()
    at.floor.restore(FUTURE)
    at.floor.report(FUTURE + SECOND // 2)
    assert at.floor.latest == FUTURE + SECOND // 2
    for _ in range(1000):
        at.floor.report(2 * FUTURE)
    assert at.floor.latest == FUTURE + UNREPORTED
    at.passes(5)
    at.floor.report(2 * FUTURE)
    assert at.floor.latest == FUTURE + 5 * SECOND + UNREPORTED


def test_a_wall_clock_that_is_set_back_does_not_make_timestamps_repeat() -> None:
    at = Clocks()
    at.floor.report(at.wall)
    before = at.floor.latest
    at.wall -= 3600 * SECOND
    at.now += 5
    at.floor.report(before + SECOND)
    assert at.floor.latest == before + SECOND


def test_room_is_left_for_what_a_dead_worker_did_not_report_if_the_clock_is_behind() -> None:
    at = Clocks()
    at.floor.report(at.wall)
    at.passes(1)
    before = at.floor.latest
    at.floor.worker_ended()
    assert at.floor.latest == before, "the clock is ahead of all that was sent"
    at.floor.restore(FUTURE)
    at.floor.worker_ended()
    assert at.floor.latest == FUTURE + UNREPORTED
    at.floor.report(FUTURE + 2 * UNREPORTED)
    assert at.floor.latest == FUTURE + 2 * UNREPORTED, "a worker that was given this much may go on from there"
