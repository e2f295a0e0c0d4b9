"""TAI64N timestamps, which make each initiation newer than the last (paper, 5.1)."""

from __future__ import annotations

from typing import Final

TIMESTAMP_SIZE: Final = 12
_BASE: Final = 0x400000000000000A  # 2^62 and the 10 s by which TAI was ahead of UTC in 1970
# The kernel leaves out what is below 2^24 ns (noise.c), so that a timestamp reveals less about our timing.
TIMESTAMP_STEP: Final = 1 << 24  # nanoseconds: times this far apart never have the same timestamp


def tai64n(wall_ns: int) -> bytes:
    """12 bytes that sort by time, from nanoseconds since 1970. Times within one step of 16.8 ms give the same bytes."""
    seconds, nanoseconds = divmod(wall_ns, 10**9)
    return (_BASE + seconds).to_bytes(8, "big") + (nanoseconds & -TIMESTAMP_STEP).to_bytes(4, "big")
