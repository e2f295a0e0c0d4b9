"""Attempts that are counted from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address
from threading import Barrier, BrokenBarrierError

import pytest

from wgpy.gateway.policy.throttle import Limit
from wgpy.gateway.web.attempts import Attempts

HOME = ip_address("192.0.2.1")


class Meeting(float):
    """Seconds that are read by two threads at once, if the two can be there at once."""

    meeting = Barrier(2, timeout=0.3)

    def __radd__(self, other: float) -> float:
        with suppress(BrokenBarrierError):
            self.meeting.wait()
        return other + float(self)


@pytest.mark.parametrize("account", ["alice", None])
def test_threads_that_come_at_once_do_not_share_the_last_attempt(account: str | None) -> None:
    """Each would find one left before either has taken it."""
    every = Meeting(60.0)
    made = Attempts(Limit(1, every if account else 60.0), Limit(1 if account is None else 9, every), 100)
    with ThreadPoolExecutor(2) as threads:
        waits = [*threads.map(lambda _: made.attempt(account, HOME, 0.0), range(2))]
    assert sorted(waits) == [0.0, 60.0]
