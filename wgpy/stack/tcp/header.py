"""The TCP header (RFC 9293, 3.1), its options, and sequence numbers as offsets that never wrap."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
ECE: Final = 0x40
CWR: Final = 0x80

HEADER_SIZE: Final = 20
HEADER: Final = Struct(">HHIIBBHHH")  # ports, sequence, acknowledgement, length, flags, window, checksum, urgent
MASK: Final = 0xFFFFFFFF
MAX_WINDOW_SCALE: Final = 14  # RFC 7323, 2.3

_END, _NOP, _MSS, _WINDOW_SCALE, _SACK_PERMITTED, _SACK, _TIMESTAMP = 0, 1, 2, 3, 4, 5, 8
_MAX_SACKS: Final = 4

_timestamps = Struct(">II")
_LONE_TIMESTAMP: Final = bytes((_NOP, _NOP, _TIMESTAMP, 10))  # as nearly every segment begins its options
TIMESTAMP_SIZE: Final = 12


def unwrap(number: int, near: int) -> int:
    """The offset closest to `near` whose low 32 bits are those of `number`."""
    return near + ((number - near + 0x80000000) & MASK) - 0x80000000


def pack_stamp(stamp: tuple[int, int] | None) -> bytes:
    """The options of a segment that has a timestamp only, or nothing: of nearly every one."""
    return b"" if stamp is None else _LONE_TIMESTAMP + _timestamps.pack(*stamp)


def lone_stamp(data: bytes) -> int | None:
    """The TSval of options as `pack_stamp` writes them; None if they are others."""
    if len(data) != TIMESTAMP_SIZE or not data.startswith(_LONE_TIMESTAMP):
        return None
    return int.from_bytes(data[4:8])


class Options(NamedTuple):
    """What the options of one segment say; `sacks` are pairs of raw sequence numbers."""

    mss: int | None = None  # bytes of payload that the sender takes in one segment
    window_scale: int | None = None
    sack_permitted: bool = False
    timestamp: tuple[int, int] | None = None  # TSval and TSecr, 32 bits each
    sacks: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Options:
        """Read them all; an option that does not fit ends the list, as in the kernel (tcp_input.c)."""
        if len(data) == TIMESTAMP_SIZE and data.startswith(_LONE_TIMESTAMP):
            return cls(None, None, False, _timestamps.unpack_from(data, 4))
        mss: int | None = None
        window_scale: int | None = None
        sack_permitted, timestamp, sacks = False, None, []
        i, end = 0, len(data)
        while i < end and data[i] != _END:
            if data[i] == _NOP:
                i += 1
                continue
            size = data[i + 1] if i + 1 < end else 0
            if size < 2 or i + size > end:
                break
            body = data[i + 2 : i + size]
            match data[i], size:
                case (2, 4):
                    mss = int.from_bytes(body)
                case (3, 3):
                    window_scale = min(body[0], MAX_WINDOW_SCALE)
                case (4, 2):
                    sack_permitted = True
                case (8, 10):
                    timestamp = (int.from_bytes(body[:4]), int.from_bytes(body[4:]))
                case (5, _) if len(body) % 8 == 0:
                    edges = [int.from_bytes(body[at : at + 4]) for at in range(0, len(body), 4)]
                    sacks = list(zip(edges[::2], edges[1::2], strict=True))[:_MAX_SACKS]
            i += size
        return cls(mss, window_scale, sack_permitted, timestamp, tuple(sacks))

    def pack(self) -> bytes:
        """In the kernel's order, padded to a multiple of four bytes."""
        out = bytearray()
        if self.mss is not None:
            out += bytes((_MSS, 4)) + self.mss.to_bytes(2)
        if self.sack_permitted:
            out += bytes((_NOP, _NOP, _SACK_PERMITTED, 2))
        out += pack_stamp(self.timestamp)
        if self.window_scale is not None:
            out += bytes((_NOP, _WINDOW_SCALE, 3, self.window_scale))
        if self.sacks:
            out += bytes((_NOP, _NOP, _SACK, 2 + 8 * len(self.sacks)))
            for start, end in self.sacks:
                out += _timestamps.pack(start & MASK, end & MASK)
        return bytes(out)


class Segment(NamedTuple):
    """Neighbouring segments of one connection as one: the header of all, the window and options of the last.

    `number` is the first byte's sequence number; `packets` how many they came in; `payload` is theirs together.
    `has_congestion_mark`: one of them bears the ECN field's CE (RFC 3168).
    """

    number: int
    acknowledgement: int
    flags: int
    window: int
    options: bytes
    payload: bytes
    packets: int = 1
    has_congestion_mark: bool = False
