"""What was read ahead from the TUN, put together by destination, so that each destination has a burst.

Packets come from the TUN in any order: the acknowledgements of many peers' uploads one by one, and many streams'
segments in super-packets of a few each, because the kernel paces each stream. Each of these alone would cost as much as
a whole burst. What goes to one destination keeps its order; between destinations there is none to keep. The stream that
is the first to fill a burst begins another: if it ended the reading, the others' bursts would be half as long.
"""

from __future__ import annotations

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Final

from wgpy.burst import Burst, ViewCache, padded_length
from wgpy.constants import MAX_DATAGRAM, MAX_SEGMENTS, TAG_SIZE, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.tun.splitting import Segments, burst_key, finish, lay_behind, place, shortest
from wgpy.tun.spreading import FEW, Spread
from wgpy.tun.virtio import GSO_NONE, NO_OFFLOAD, VnetHeader

MAX_GROUPS: Final = 16
# Bytes of slots: three long super-packets. With two, one stream was 2 % slower, and with four not faster.
MAX_BURST: Final = 3 * MAX_DATAGRAM
_GROUP_SIZE: Final = 1 << 16  # bytes of slots: as many as one send takes


def has_room(size: int) -> bool:
    """Whether one send takes at least as much again beside so many bytes of slots."""
    return 2 * size <= MAX_DATAGRAM


def append(burst: Burst, header: VnetHeader, packet: memoryview, mtus: tuple[int, ...]) -> bool:
    """Put what was read next behind a burst whose packets are all equally long, if it belongs there; whether it did.

    That is a super-packet with segments of the same length; or, behind a single super-packet, a shorter lone packet
    with which one send takes all. It lies in another buffer than the burst.
    """
    slots, count, length = burst.cache, len(burst.lengths), len(packet)
    if slots is None or burst_key(packet) != burst_key(burst.packet(0)):
        return False
    if header.gso_type != GSO_NONE:
        segments = Segments.of(header, packet)
        if segments is None or segments.end + segments.size != burst.lengths[0]:
            return False
        if (count + segments.pieces) * burst.stride > min(MAX_BURST, len(slots.buffer)):
            return False
        lay_behind(burst, segments, packet[: segments.end], packet[segments.end :], slots, mtus)
        return True
    end = count * burst.stride + padded_length(length, mtus) + TRANSPORT_OVERHEAD
    if count >= MAX_SEGMENTS or end > MAX_DATAGRAM or not shortest(header) <= length < burst.lengths[0]:
        return False
    at = count * burst.stride + TRANSPORT_HEADER_SIZE
    slots.buffer[at : at + length] = packet
    burst.lengths.append(length)
    burst.view = slots.buffer[:end]
    finish(slots, header, burst.stride, count, burst.lengths)
    return True


class Group:
    """Packets of one destination, in slots from the beginning of a buffer; all but the last as long as the first.

    Their checksums are completed at the end, when all headers are written.
    """

    __slots__ = (
        "_cache",
        "_earlier",
        "_header",
        "_least",
        "_lengths",
        "_most",
        "_origin",
        "_spread",
        "_stride",
        "at",
        "is_open",
        "length",
        "room",
    )

    def __init__(self, cache: ViewCache, spread: Spread, origin: int, length: int, stride: int) -> None:
        """An empty group, for a first packet of `length` bytes. Its buffer begins at `origin` in `spread`'s memory."""
        self._cache = cache
        self._spread = spread
        self._origin = origin
        self._stride = stride
        self._header = NO_OFFLOAD
        self._earlier: list[tuple[VnetHeader, int]] = []  # headers, each with the number of the packet after its last
        self._least = 1
        self._lengths: list[int] = []
        self.length: int = length
        self.at: int = TRANSPORT_HEADER_SIZE  # where the next packet begins
        self._most = min(MAX_DATAGRAM // stride, MAX_SEGMENTS)  # packets
        self.room: int = self._most
        self.is_open: bool = True

    def take(self, header: VnetHeader, packet: memoryview) -> bool:
        """Add a lone packet, if it belongs here; whether it did."""
        if header is not self._header and header != self._header:
            self._turn_to(header)
        length, at = len(packet), self.at
        if not self.is_open or not self._least <= length <= self.length:
            return False
        self._cache.buffer[at : at + length] = packet
        self._lengths.append(length)
        self.at = at + self._stride
        self.room -= 1
        self.is_open = self.room > 0 and length == self.length
        return True

    def take_segments(self, segments: Segments, packet: memoryview) -> bool:
        """Add a super-packet's segments, if they belong here; whether they did."""
        count, length = segments.pieces, self.length
        if not self.is_open or count > self.room or segments.end + segments.size != length:
            return False
        header = segments.unfinished
        if header is not self._header and header != self._header:
            self._turn_to(header)
        if count > FEW:
            start, payload, first = packet[: segments.end], packet[segments.end :], len(self._lengths)
            place(segments, start, payload, self._cache, first, self._stride, self._most)
        else:
            self._spread.add(segments, packet, self._origin + self.at, self._stride)
        last = segments.last(packet)
        self._lengths += [length] * (count - 1)
        self._lengths.append(last)
        self.at += count * self._stride
        self.room -= count
        self.is_open = self.room > 0 and last == length
        return True

    def _turn_to(self, header: VnetHeader) -> None:
        """What comes now has another header than what came before."""
        if self._lengths:
            self._earlier.append((self._header, len(self._lengths)))
        self._header, self._least = header, shortest(header)

    def burst(self, mtus: tuple[int, ...]) -> Burst:
        """All of them."""
        first = 0
        for header, after in (*self._earlier, (self._header, len(self._lengths))):
            finish(self._cache, header, self._stride, first, self._lengths[:after])
            first = after
        last = self.at - self._stride + padded_length(self._lengths[-1], mtus) + TAG_SIZE
        return Burst(self._cache.buffer[:last], self._stride, self._lengths, self._cache)


class Groups:
    """What was read ahead. The first destination's packets are gathered where they are read."""

    def __init__(self, size: int) -> None:
        """The buffer for reading has `size` bytes."""
        # Of anonymous memory, pages that are never written to take no room.
        memory = memoryview(mmap(-1, size + (MAX_GROUPS - 1) * _GROUP_SIZE, MAP_PRIVATE | MAP_ANONYMOUS))
        self._origins = [0, *range(size, len(memory), _GROUP_SIZE)]
        self._caches = [ViewCache(memory[at : at + (_GROUP_SIZE if at else size)]) for at in self._origins]
        self._groups: list[Group] = []
        self._latest: dict[bytes, tuple[bytes, Group]] = {}  # by destination, with its `burst_key`
        self._spread = Spread(memory)
        self.reading: ViewCache = self._caches[0]

    def begin(self, header: VnetHeader, packet: memoryview, mtus: tuple[int, ...]) -> Group:
        """Begin with what the first read brought, which fits its header and beside which there is room."""
        segments = Segments.of(header, packet) if header.gso_type != GSO_NONE else None
        group = self._begin(burst_key(packet), header, packet, segments, mtus)
        assert group is not None
        return group

    def take(self, header: VnetHeader, packet: memoryview, mtus: tuple[int, ...]) -> int:
        """Put what one read brought to the others of its destination: how many packets that were; 0 if it cannot be.

        What does not fit into the same burst begins another one, unless all packets so far are for that destination.
        """
        key, segments = burst_key(packet), None
        if not key or (header.gso_type != GSO_NONE and (segments := Segments.of(header, packet)) is None):
            return 0
        known, group = self._latest.get(key[2:], (b"", None))
        if known != key:  # with ECN, a connection's data and acknowledgements have different classes, and one order
            group = None
        if group is None or not (group.take(header, packet) if not segments else group.take_segments(segments, packet)):
            if len(self._groups) == MAX_GROUPS or (group is not None and len(self._groups) == 1):
                return 0
            if self._begin(key, header, packet, segments, mtus) is None:
                return 0
        return segments.pieces if segments else 1

    def _begin(
        self, key: bytes, header: VnetHeader, packet: memoryview, segments: Segments | None, mtus: tuple[int, ...]
    ) -> Group | None:
        length, count = (segments.end + segments.size, segments.pieces) if segments else (len(packet), 1)
        stride = padded_length(length, mtus) + TRANSPORT_OVERHEAD
        if not has_room(count * stride):
            return None
        number = len(self._groups)
        group = Group(self._caches[number], self._spread, self._origins[number], length, stride)
        if not (group.take(header, packet) if not segments else group.take_segments(segments, packet)):
            return None
        self._groups.append(group)
        self._latest[key[2:]] = key, group
        return group

    def bursts(self, mtus: tuple[int, ...]) -> list[Burst]:
        """A burst for each group, the last first; then there are none."""
        self._spread.write_headers()
        made = [group.burst(mtus) for group in reversed(self._groups)]
        self._groups.clear()
        self._latest.clear()
        return made
