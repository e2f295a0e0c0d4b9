"""How a connection's offsets, options and windows are written into headers, and read from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from wgpy.stack import ip
from wgpy.stack.tcp.header import HEADER, HEADER_SIZE, MASK, TIMESTAMP_SIZE, Options, pack_stamp, unwrap

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
        "_recent", "_recent_at", "_stamp_offset", "has_stamps", "isn", "last_acknowledged", "mtu", "names",
        "peer_isn", "scale",
    )  # fmt: skip

    def __init__(self, names: Names, isn: int, stamp_offset: int, mtu: int) -> None:
        self.names: Names = names
        self.isn: int = isn
        self.mtu: int = mtu
        self.peer_isn: int = 0
        self.scale: int = 0  # of the windows that the peer tells
        self.has_stamps: bool = True
        self.last_acknowledged: int = 0  # of the peer's offsets
        self._stamp_offset = stamp_offset
        self._recent = 0
        self._recent_at = 0.0

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

    def segment(self, told: int | None) -> int:
        """The payload of a full segment to a peer that takes `told` bytes (None: it did not say)."""
        mss = DEFAULT_MSS[len(self.names.remote)] if told is None else told
        return min(max(mss, LEAST_MSS), self.longest) - (TIMESTAMP_SIZE if self.has_stamps else 0)

    # Timestamps (RFC 7323).

    def learn_stamp(self, options: Options, now: float) -> None:
        """Take over whether the peer's SYN has one."""
        self.has_stamps = options.timestamp is not None
        self._note(options, now)

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

    def is_newer(self, number: int, options: Options, following: int) -> bool:
        """Whether a SYN is of a later connection than this, which has ended at offset `following` (RFC 6191)."""
        if self.has_stamps and options.timestamp is not None and options.timestamp[0] != self._recent:
            return (options.timestamp[0] - self._recent) & MASK <= MASK // 2
        return self.their_offset(number, following) > following

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
        names = self.names
        length = HEADER_SIZE + len(options)
        # Options longer than a timestamp take room from the payload.
        size = max(1, segment + (TIMESTAMP_SIZE if self.has_stamps else 0) - len(options))
        head = ip.header(names.local, names.remote, ip.TCP, length + min(size, len(payload)), ecn=ecn)
        tcp = HEADER.pack(
            names.local_port, names.remote_port, number, acknowledgement, length << 2, flags,
            min(window, MAX_WINDOW), 0, 0,
        )  # fmt: skip
        return Departure(head + tcp + options, payload, size)
