"""Netlink's messages about changes: however many come, looking at them does not keep a core busy."""

from __future__ import annotations

import time
from unittest.mock import Mock

import pytest

from wgpy.net.monitor import Monitor


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """In a time in which nothing takes long by itself."""
    monkeypatch.setattr(time, "thread_time", lambda: 7.0)
    return Mock()


def test_after_a_slow_check_the_next_one_waits_longer(loop: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor(loop, lambda: monkeypatch.setattr(time, "thread_time", lambda: 7.5))
    (fd, readable), _ = loop.add_reader.call_args
    readable()
    loop.remove_reader.assert_called_once_with(fd)
    (rest, then), _ = loop.call_later.call_args
    assert rest == 20 * 0.5
    loop.add_reader.reset_mock()
    then()
    loop.add_reader.assert_called_once_with(fd, readable)
    monitor.close()


def test_the_monitor_may_be_closed_while_it_waits(loop: Mock) -> None:
    monitor = Monitor(loop, lambda: None)
    loop.add_reader.call_args.args[1]()
    monitor.close()
    loop.call_later.return_value.cancel.assert_called_once_with()


def test_the_monitor_may_be_closed_by_its_own_callback(loop: Mock) -> None:
    monitor = Monitor(loop, lambda: monitor.close())
    loop.add_reader.call_args.args[1]()
    loop.call_later.assert_not_called()
