"""The timestamps of handshakes that control keeps, for the process that takes a dead worker's seat."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from wgpy.datapath import machine_clock
from wgpy.device.device import Device

UNREPORTED: Final = 10**9  # nanoseconds of timestamps: 59 initiations, where one to each peer awaits its answer


class TimestampFloor:
    """The latest timestamp that the interface may have sent (`Device.timestamp_floor`), kept in control's `device`.

    Workers report it, and every interface of this machine begins after it for ever (daemon/timestamp.py). So a worker
    that was taken over must not move it into the future: a report counts up to a ceiling, which rises with the time and
    with the wall clock, and is never set back. `clock` counts seconds, `wall_clock` nanoseconds since 1970.
    """

    def __init__(
        self,
        device: Device,
        clock: Callable[[], float] = machine_clock,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._device = device
        self._clock = clock
        self._wall_clock = wall_clock
        self._ceiling, self._ceiling_at = 0, clock()

    @property
    def latest(self) -> int:
        """In nanoseconds since 1970."""
        return self._device.timestamp_floor

    def restore(self, nanoseconds: int) -> None:
        """Take what this machine has kept itself."""
        self._device.timestamp_floor = nanoseconds
        self._ceiling = max(self._ceiling, nanoseconds)

    def report(self, nanoseconds: int) -> None:
        """Take what a worker says, as far as it can be true."""
        now = self._clock()
        self._ceiling = max(self._ceiling + int((now - self._ceiling_at) * 1e9), self._wall_clock())
        self._ceiling_at = now
        self._device.timestamp_floor = min(nanoseconds, self._ceiling + UNREPORTED)

    def worker_ended(self) -> None:
        """Leave room for what a worker may have sent but not reported, if the clock is behind that."""
        if self._wall_clock() <= self.latest:
            self.restore(self.latest + UNREPORTED)
