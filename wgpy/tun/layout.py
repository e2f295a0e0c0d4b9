"""Where the header fields of many packets are, as arrays over the buffer that holds the packets.

Making one costs as much as computing with it, so a reader, whose buffer stays the same, keeps them in its `ViewCache`.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wgpy.tun.checksum import WORD

U8: Final = np.dtype("u1")
U16: Final = np.dtype(">u2")
U32: Final = np.dtype(">u4")

TCP: Final = 6
UDP: Final = 17
CHECK_AT: Final = {TCP: 16, UDP: 6}  # where in the transport header the checksum is
FIN: Final = 0x01
PSH: Final = 0x08
ACK: Final = 0x10
CWR: Final = 0x80

u16: Final = Struct(">H")
u32: Final = Struct(">I")

Column = npt.NDArray[Any]


class Layout:
    """Arrays over `count` packets that are `stride` bytes apart, the first at `at`, with headers of equal length.

    The transport header is at the offset `l4`, its checksum at `check`, and the payload at `end`; it has `size` bytes
    in all packets but the last. `steps` numbers the packets from 0, `offsets` counts the payload bytes before each.
    """

    __slots__ = ("checks", "headers", "ids", "offsets", "sequences", "steps")

    def __init__(
        self, buffer: memoryview, at: int, stride: int, count: int, l4: int, check: int, end: int, size: int
    ) -> None:
        def column(offset: int, dtype: np.dtype[Any]) -> Column:
            return np.ndarray((count,), dtype, buffer, at + offset, (stride,))

        self.headers: Column = np.ndarray((count, end // 4), np.uint32, buffer, at, (stride, 4))
        self.ids: Column = column(4, U16)  # of IPv4
        self.sequences: Column = column(l4 + 4, U32)  # of TCP
        self.checks: Column = column(check, WORD)
        self.steps: Column = np.arange(count)
        self.offsets: Column = np.arange(0, count * size, size, dtype=np.uint32)


def store_lengths(packet: bytearray | memoryview, at: int, version: int, protocol: int, l4: int, length: int) -> None:
    """Write `length`, a whole packet's bytes, into the length fields of the packet at `at`."""
    if version == 4:
        u16.pack_into(packet, at + 2, length)
    else:
        u16.pack_into(packet, at + 4, length - 40)
    if protocol == UDP:
        u16.pack_into(packet, at + l4 + 4, length - l4)
