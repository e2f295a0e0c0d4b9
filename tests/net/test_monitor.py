"""Netlink's messages about changes: however many come, looking at them does not keep a core busy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from unittest.mock import Mock

import pytest

from wgpy.net.monitor import Monitor


class Machine:
    """A loop whose time and work are numbers: each look at the links takes `cost` seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.worked = 0.0
        self.cost, self.closes = 0.0, False
        self.loop = Mock(time=lambda: self.now)
        monkeypatch.setattr(time, "thread_time", lambda: self.worked)
        self.monitor = Monitor(self.loop, self.look)

    def look(self) -> None:
        self.worked += self.cost
        self.now += self.cost
        if self.closes:
            self.monitor.close()

    def changes(self) -> None:
        """Something has changed; then time passes until the monitor listens again."""
        (_, readable), _ = self.loop.add_reader.call_args
        self.loop.call_later.reset_mock()
        readable()
        for (rest, listen), _ in self.loop.call_later.call_args_list:
            self.now += rest
            listen()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(monkeypatch)
    yield made
    made.monitor.close()


def test_a_few_changes_are_each_looked_at_at_once(machine: Machine) -> None:
    """As when a link is set down and up."""
    machine.cost = 0.004
    for _ in range(12):
        machine.changes()
    assert machine.now == pytest.approx(12 * machine.cost)


@pytest.mark.parametrize("cost", [0.0005, 0.02, 1.0])
def test_looking_takes_a_twentieth_of_the_time_however_much_changes(machine: Machine, cost: float) -> None:
    machine.cost = cost
    for _ in range(4000):
        machine.changes()
    assert machine.worked < machine.now / 20 + 0.05 + 2 * cost
    assert machine.worked > machine.now / 25, "and it is not put off for longer than that"


def test_after_a_rest_the_next_change_is_looked_at_at_once(machine: Machine) -> None:
    machine.cost = 0.2
    machine.changes()
    assert machine.now == pytest.approx(0.2 + 20 * (0.2 - 0.05))
    fd = machine.loop.add_reader.call_args.args[0]
    machine.loop.remove_reader.assert_called_once_with(fd)


def test_what_was_saved_in_a_quiet_day_is_no_more_than_in_a_second(machine: Machine) -> None:
    machine.now = 86_400.0
    machine.cost = 0.2
    machine.changes()
    assert machine.now == pytest.approx(86_400.2 + 20 * (0.2 - 0.05))


def test_the_monitor_may_be_closed_while_it_waits(machine: Machine) -> None:
    machine.cost = 1.0
    machine.loop.add_reader.call_args.args[1]()
    machine.monitor.close()
    machine.loop.call_later.return_value.cancel.assert_called_once_with()


def test_the_monitor_may_be_closed_by_its_own_callback(machine: Machine) -> None:
    machine.cost, machine.closes = 1.0, True
    machine.loop.add_reader.call_args.args[1]()
    machine.loop.call_later.assert_not_called()
