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
from wgpy.constants import MAX_DATAGRAM, MAX_SEGMENTS, TAG_SIZE, TRANSPORT_HEADER_SIZE
from wgpy.tun.splitting import burst_key, finish, shortest, split, unfinished
from wgpy.tun.virtio import GSO_NONE, VnetHeader

MAX_GROUPS: Final = 16
_GROUP_SIZE: Final = 1 << 16  # bytes of slots: as many as one send takes


def has_room(burst: Burst) -> bool:
    """Whether one send takes at least as much again beside this burst."""
    return 2 * len(burst.view) <= MAX_DATAGRAM


class _Group:
    """Packets of one destination, in slots from the beginning of a buffer; all but the last as long as the first."""

    __slots__ = ("_cache", "_finished", "_header", "_least", "_lengths", "_stride", "at", "is_open", "length", "room")

    def __init__(self, cache: ViewCache, header: VnetHeader, first: Burst, *, is_finished: bool) -> None:
        self._cache = cache
        self._stride = first.stride
        self._header = header
        self._least = shortest(header)
        self._lengths = first.lengths
        self._finished = len(first) if is_finished else 0  # packets; the checksums of the others are to be completed
        self.length = first.lengths[0]
        self.at = len(first) * first.stride + TRANSPORT_HEADER_SIZE  # where the next packet begins
        self.room = min(MAX_DATAGRAM // first.stride, MAX_SEGMENTS) - len(first)  # packets
        self.is_open = self.room > 0 and first.lengths[-1] == self.length

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

    def take_segments(self, header: VnetHeader, segments: Burst) -> bool:
        """Add segments with this `unfinished` header, if they belong here; whether they did."""
        count, lengths, at = len(segments.lengths), segments.lengths, self.at - TRANSPORT_HEADER_SIZE
        if not self.is_open or count > self.room or lengths[0] != self.length:
            return False
        if header != self._header:
            self._turn_to(header)
        self._cache.buffer[at : at + len(segments.view)] = segments.view
        self._lengths += lengths
        self.at += count * self._stride
        self.room -= count
        self.is_open = self.room > 0 and lengths[-1] == self.length
        return True

    def _turn_to(self, header: VnetHeader) -> None:
        """What comes now has another header than what came before."""
        self._finish()
        self._header, self._least = header, shortest(header)

    def _finish(self) -> None:
        finish(self._cache, self._header, self._stride, self._finished, self._lengths)
        self._finished = len(self._lengths)

    def burst(self, mtus: tuple[int, ...]) -> Burst:
        """All of them."""
        self._finish()
        last = self.at - self._stride + padded_length(self._lengths[-1], mtus) + TAG_SIZE
        return Burst(self._cache.buffer[:last], self._stride, self._lengths, self._cache)


class Groups:
    """What was read ahead. The first destination's packets are gathered where they are read."""

    def __init__(self, cache: ViewCache, slots: ViewCache) -> None:
        """`cache` has the buffer for reading; `slots` takes a super-packet's segments before they join a group."""
        # Of anonymous memory, pages that are never written to take no room.
        memory = memoryview(mmap(-1, (MAX_GROUPS - 1) * _GROUP_SIZE, MAP_PRIVATE | MAP_ANONYMOUS))
        others = [ViewCache(memory[at : at + _GROUP_SIZE]) for at in range(0, len(memory), _GROUP_SIZE)]
        self._caches = [cache, *others]
        self._slots = slots
        self._groups: list[_Group] = []
        self._latest: dict[bytes, tuple[bytes, _Group]] = {}  # by destination, with its `burst_key`

    def begin(self, header: VnetHeader, first: Burst) -> _Group:
        """Begin with what the first read brought: a packet in the buffer for reading, or segments in the slots."""
        return self._add(burst_key(first.packet(0)), header, first, is_finished=True)

    def take(self, header: VnetHeader, packet: memoryview, mtus: tuple[int, ...]) -> int:
        """Put what one read brought to the others of its destination: how many packets that were; 0 if it cannot be.

        What does not fit into the same burst begins another one, unless all packets so far are for that destination.
        """
        key, is_lone = burst_key(packet), header.gso_type == GSO_NONE
        if not key:
            return 0
        known, group = self._latest.get(key[2:], (b"", None))
        if known != key:  # with ECN, a connection's data and acknowledgements have different classes, and one order
            group = None
        if group is not None and is_lone and group.take(header, packet):
            return 1
        may_begin = len(self._groups) < MAX_GROUPS and (group is None or len(self._groups) > 1)
        if group is not None and (is_lone or len(packet) > group.room * header.gso_size):
            group = None
        if group is None and not may_begin:
            return 0
        burst = split(header, packet, self._caches[len(self._groups)] if is_lone else self._slots, mtus, finished=False)
        if burst is None:
            return 0
        if not is_lone:
            header = unfinished(header)
        if group is not None and group.take_segments(header, burst):
            return len(burst)
        if not may_begin or not has_room(burst):
            return 0
        self._add(key, header, burst, is_finished=is_lone)
        return len(burst)

    def _add(self, key: bytes, header: VnetHeader, first: Burst, *, is_finished: bool) -> _Group:
        cache = self._caches[len(self._groups)]
        if first.cache is not cache:
            cache.buffer[: len(first.view)] = first.view
        group = _Group(cache, header, first, is_finished=is_finished)
        self._groups.append(group)
        self._latest[key[2:]] = key, group
        return group

    def bursts(self, mtus: tuple[int, ...]) -> list[Burst]:
        """A burst for each group, the last first; then there are none."""
        made = [group.burst(mtus) for group in reversed(self._groups)]
        self._groups.clear()
        self._latest.clear()
        return made
