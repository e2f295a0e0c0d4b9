"""TAI64N timestamps, which make each initiation newer than the last (paper, 5.1)."""

from __future__ import annotations

from typing import Final

TIMESTAMP_SIZE: Final = 12
_BASE: Final = 0x400000000000000A  # 2^62 and the 10 s by which TAI was ahead of UTC in 1970
# The kernel drops what is below 2^24 ns (noise.c), so that a timestamp tells less about our timing.
TIMESTAMP_STEP: Final = 1 << 24  # nanoseconds: times so far apart never have the same stamp


def tai64n(wall_ns: int) -> bytes:
    """12 bytes that compare as time does, from nanoseconds since 1970. Equal within steps of 16.8 ms."""
    seconds, nanoseconds = divmod(wall_ns, 10**9)
    return (_BASE + seconds).to_bytes(8, "big") + (nanoseconds & -TIMESTAMP_STEP).to_bytes(4, "big")
