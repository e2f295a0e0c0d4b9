"""How much passed lately: the counters of the last minutes, and the rates that follow from them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from wgpy.gateway.policy.sessions import Traffic

SPAN: Final = 600.0  # seconds that are remembered
APART: Final = 5.0  # seconds between two samples at least


class Rate(NamedTuple):
    """What passed each second, in bytes, in a time that ended `ago` seconds before now."""

    ago: float
    ingress: float
    egress: float


class History:
    """Samples of counters that only grow. Times are of any clock that does, too."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Traffic]] = deque(maxlen=int(SPAN / APART))

    def add(self, now: float, total: Traffic) -> None:
        """Remember the counters of now, unless there is a sample that is hardly older."""
        if not self._samples or now >= self._samples[-1][0] + APART:
            self._samples.append((now, total))

    def rates(self, now: float) -> list[Rate]:
        """The rates between the samples of the last ten minutes, the newest last."""
        return [rate for rate in self._rates(now) if rate.ago < SPAN]

    def _rates(self, now: float) -> Iterator[Rate]:
        for (since, before), (at, total) in pairwise(list(self._samples)):
            passed = total.less(before)
            yield Rate(now - at, passed.ingress_bytes / (at - since), passed.egress_bytes / (at - since))
