"""How a connection's offsets, options and windows are written into headers, and read from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from wgpy.stack import ip
from wgpy.stack.tcp.header import (
    ACK,
    FIN,
    HEADER,
    HEADER_SIZE,
    MASK,
    RST,
    SYN,
    TIMESTAMP_SIZE,
    Options,
    Segment,
    lone_stamp,
    pack_stamp,
    unwrap,
)

WINDOW_SCALE: Final = 7
MAX_WINDOW: Final = 65535  # that a header can tell
LEAST_MSS: Final = 48  # the kernel's TCP_MIN_SND_MSS: a peer that takes less costs us more than it
DEFAULT_MSS: Final = {4: 536, 16: 1220}  # RFC 9293, 3.7.1: of a peer that names none, by the length of its address
_STAMP_LASTS: Final = 24 * 86400.0  # seconds, RFC 7323, 5.5


class Names(NamedTuple):
    """Who speaks with whom: addresses of 4 or 16 bytes."""

    local: bytes
    local_port: int
    remote: bytes
    remote_port: int

    @classmethod
    def of(cls, key: bytes) -> Names:
        """From what the peer's packets bear."""
        size = len(key) // 2 - 2
        ports = int.from_bytes(key[-2:]), int.from_bytes(key[-4:-2])
        return cls(key[size : 2 * size], ports[0], key[:size], ports[1])

    @property
    def key(self) -> bytes:
        """As the peer's packets bear them."""
        return self.remote + self.local + self.remote_port.to_bytes(2) + self.local_port.to_bytes(2)


class Departure(NamedTuple):
    """Segments that leave together: the first's headers, without checksums, and `size` bytes of payload for each."""

    start: bytes
    payload: bytes | memoryview
    size: int


class Framing:
    """The numbers of one connection. `mtu` bytes are what the way to the peer takes; times are seconds."""

    __slots__ = (
        "_recent", "_recent_at", "_stamp_offset", "has_stamps", "isn", "last_acknowledged", "mss", "mtu", "names",
        "peer_isn", "scale",
    )  # fmt: skip

    def __init__(self, names: Names, isn: int, stamp_offset: int, mtu: int) -> None:
        self.names: Names = names
        self.isn: int = isn
        self.mtu: int = mtu
        self.mss: int = DEFAULT_MSS[len(names.remote)]  # that the peer tells
        self.peer_isn: int = 0
        self.scale: int = 0  # of the windows that the peer tells
        self.has_stamps: bool = True
        self.last_acknowledged: int = 0  # of the peer's offsets
        self._stamp_offset = stamp_offset
        self._recent = 0
        self._recent_at = 0.0

    def learn(self, number: int, options: Options, now: float) -> None:
        """Take over what the peer's SYN says, which has this sequence number."""
        self.peer_isn, self.last_acknowledged = number, 1
        self.mss = self.mss if options.mss is None else options.mss
        self.scale = options.window_scale or 0
        self.has_stamps = options.timestamp is not None
        self._note(options, now)

    # Numbers.

    def number(self, offset: int) -> int:
        """The sequence number of an offset of ours."""
        return (self.isn + offset) & MASK

    def offset(self, number: int, near: int) -> int:
        """The offset of ours that a number means, of those the one closest to `near`."""
        return unwrap(number - self.isn, near)

    def their_offset(self, number: int, near: int) -> int:
        """The same of the peer's."""
        return unwrap(number - self.peer_isn, near)

    def sacked(self, options: Options, near: int, end: int) -> list[tuple[int, int]]:
        """The ranges before `end` of our offsets that the peer's SACK names, of those the ones closest to `near`."""
        if not options.sacks:
            return []
        ranges = [(self.offset(left, near), self.offset(right, near)) for left, right in options.sacks]
        return [(left, right) for left, right in ranges if left < right <= end]

    def their_number(self, offset: int) -> int:
        """The sequence number of an offset of the peer's."""
        return (self.peer_isn + offset) & MASK

    # Sizes.

    @property
    def longest(self) -> int:
        """The longest payload, options included, for which the path has room: the MSS to tell."""
        return self.mtu - ip.header_size(self.names.remote) - HEADER_SIZE

    @property
    def segment(self) -> int:
        """The payload of a full segment, by what the peer and the path take."""
        return self.segment_of(self.mtu)

    def segment_of(self, mtu: int) -> int:
        """The payload of a full segment if the path takes packets of `mtu` bytes."""
        longest = mtu - ip.header_size(self.names.remote) - HEADER_SIZE
        return min(max(self.mss, LEAST_MSS), longest) - (TIMESTAMP_SIZE if self.has_stamps else 0)

    # Timestamps (RFC 7323).

    def note_stamp(self, options: Options, start: int, now: float) -> None:
        """Remember what to echo, from segments that were expected (RFC 7323, 4.3)."""
        if self.has_stamps and start <= self.last_acknowledged:
            self._note(options, now)

    def _note(self, options: Options, now: float) -> None:
        if options.timestamp is not None:
            self._recent, self._recent_at = options.timestamp[0], now

    def is_stale(self, options: Options, now: float) -> bool:
        """Whether a segment is older than one that has come before: PAWS (RFC 7323, 5.3)."""
        if not self.has_stamps or options.timestamp is None:
            return False
        return (options.timestamp[0] - self._recent) & MASK > MASK // 2 and now - self._recent_at < _STAMP_LASTS

    def expects(self, segment: Segment, start: int, upto: int) -> bool:
        """Whether a segment begins at the peer's offset `start`, acknowledges all before ours, `upto`, and is no older.

        Its only option is a timestamp; it has none where the peers agreed on none.
        """
        if segment.number != (self.peer_isn + start) & MASK or segment.acknowledgement != (self.isn + upto) & MASK:
            return False
        if not self.has_stamps:
            return not segment.options
        stamp = lone_stamp(segment.options)
        return stamp is not None and (stamp - self._recent) & MASK <= MASK // 2

    def note_expected(self, options: bytes, start: int, now: float) -> None:
        """As `note_stamp`, of what it `expects`."""
        if self.has_stamps and start <= self.last_acknowledged:
            self._recent, self._recent_at = int.from_bytes(options[4:8]), now

    def is_newer(self, number: int, options: Options, following: int) -> bool:
        """Whether a SYN is of a later connection than this, which has ended at offset `following` (RFC 6191)."""
        if self.has_stamps and options.timestamp is not None and options.timestamp[0] != self._recent:
            return (options.timestamp[0] - self._recent) & MASK <= MASK // 2
        return self.their_offset(number, following) > following

    def greeting(self, now: float, scales: bool, sacks: bool) -> bytes:
        """The options of a SYN: our MSS, and what else is asked for, or agreed to."""
        scale = WINDOW_SCALE if scales else None
        return Options(self.longest, scale, sacks, self.stamp(now)).pack()

    def stamp(self, now: float) -> tuple[int, int] | None:
        """What to send: milliseconds of ours, and the peer's newest."""
        if not self.has_stamps:
            return None
        return (int(now * 1000) + self._stamp_offset) & MASK, self._recent

    def echoed(self, options: Options, now: float) -> int | None:
        """The milliseconds of `now` at which the segment left to which the peer's answers, as its timestamp says."""
        if not self.has_stamps or options.timestamp is None or not options.timestamp[1]:
            return None
        milliseconds = int(now * 1000)
        age = (milliseconds + self._stamp_offset - options.timestamp[1]) & MASK
        return milliseconds - age if age < MASK // 2 else None

    # Headers.

    def options(self, now: float, blocks: Sequence[tuple[int, int]]) -> bytes:
        """The options of a segment after the handshake: a timestamp, and the peer's offsets that came behind a gap."""
        stamp = self.stamp(now)
        if not blocks:
            return pack_stamp(stamp)
        isn = self.peer_isn
        return Options(timestamp=stamp, sacks=tuple((isn + start, isn + end) for start, end in blocks)).pack()

    def departure(
        self,
        number: int,
        flags: int,
        acknowledgement: int = 0,
        *,
        window: int = 0,
        options: bytes = b"",
        payload: bytes | memoryview = b"",
        segment: int = 0,
        ecn: int = 0,
    ) -> Departure:
        """Segments that begin at sequence number `number`; those that are full carry `segment` bytes."""
        local, local_port, remote, remote_port = self.names
        length, carried = HEADER_SIZE + len(options), len(payload)
        # Options longer than a timestamp take room from the payload.
        size = max(1, segment + (TIMESTAMP_SIZE if self.has_stamps else 0) - len(options))
        head = ip.header(local, remote, ip.TCP, length + (carried if carried < size else size), ecn)
        window = window if window < MAX_WINDOW else MAX_WINDOW
        tcp = HEADER.pack(local_port, remote_port, number, acknowledgement, length << 2, flags, window, 0, 0)
        return Departure(head + tcp + options, payload, size)


def reset(names: Names, segment: Segment) -> bytes:
    """The headers of the answer to a segment of no connection there is (RFC 9293, 3.10.7.1)."""
    if segment.flags & ACK:
        number, acknowledgement, flags = segment.acknowledgement, 0, RST
    else:
        length = len(segment.payload) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
        number, acknowledgement, flags = 0, (segment.number + length) & MASK, RST | ACK
    head = ip.header(names.local, names.remote, ip.TCP, HEADER_SIZE)
    ports = names.local_port, names.remote_port
    return head + HEADER.pack(*ports, number, acknowledgement, HEADER_SIZE << 2, flags, 0, 0, 0)
