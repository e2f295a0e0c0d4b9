"""What all peers of one device share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wgpy.noise.handshake import LocalStatic


@dataclass(slots=True)
class Interface:
    """The interface's identity and state, and its sources of randomness and time."""

    random: Callable[[int], bytes]  # as many unpredictable bytes
    wall_clock: Callable[[], int]  # nanoseconds since 1970
    keylog: Callable[[str, bytes], None] | None = None
    local: LocalStatic | None = None
    is_up: bool = False
    timestamp_floor: int = 0  # nanoseconds since 1970: no initiation bore a later time
    handed_over: int = 0  # packets and initiations, to other workers
