"""Lone packets that go elsewhere than the one before them: sorted by destination, so that each destination has a burst.

What many peers are sent at once, such as the acknowledgements of their uploads, comes from the TUN in any order. One by
one, each such packet would cost as much as a burst. Those of one destination keep their order; between destinations
there is none to keep.
"""

from __future__ import annotations

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Final

from wgpy.burst import Burst, ViewCache
from wgpy.constants import MAX_SEGMENTS, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.tun.splitting import join, shortest, split
from wgpy.tun.virtio import GSO_NONE, VnetHeader

MAX_GROUPS: Final = 16
GROUP_SIZE: Final = 1 << 14  # bytes of slots: eleven long packets, or as many short ones as one send takes


class _Group:
    """Packets of one destination, in slots of a buffer of its own."""

    __slots__ = ("cache", "first", "header", "is_open", "least", "lengths", "room")

    def __init__(self, cache: ViewCache, header: VnetHeader, first: Burst) -> None:
        self.cache = cache
        self.header = header
        self.first = first
        self.lengths: list[int] = []  # of the packets after the first
        self.least = shortest(header)
        self.room = min(GROUP_SIZE // first.stride, MAX_SEGMENTS) - 1
        self.is_open = self.room > 0

    def take(self, header: VnetHeader, packet: memoryview) -> bool:
        """Add a packet, if it belongs; whether it did. All but the last are as long as the first."""
        length = len(packet)
        if not self.is_open or header != self.header or not self.least <= length <= self.first.lengths[0]:
            return False
        self.lengths.append(length)
        at = len(self.lengths) * self.first.stride + TRANSPORT_HEADER_SIZE
        self.cache.buffer[at : at + length] = packet
        self.is_open = length == self.first.lengths[0] and len(self.lengths) < self.room
        return True

    def burst(self, mtus: tuple[int, ...]) -> Burst:
        return join(self.first, self.header, self.cache, self.lengths, mtus) if self.lengths else self.first


class Groups:
    """The packets that were read ahead, but for those of the first destination."""

    def __init__(self) -> None:
        # Of anonymous memory, pages that are never written to take no room.
        memory = memoryview(mmap(-1, MAX_GROUPS * GROUP_SIZE, MAP_PRIVATE | MAP_ANONYMOUS))
        self._caches = [ViewCache(memory[at : at + GROUP_SIZE]) for at in range(0, len(memory), GROUP_SIZE)]
        self._groups: dict[bytes, _Group] = {}

    def take(self, header: VnetHeader, packet: memoryview, key: bytes, mtus: tuple[int, ...]) -> bool:
        """Copy a packet with this `burst_key` to the others with it; whether that was possible."""
        group = self._groups.get(key)
        if group is not None:
            return group.take(header, packet)
        if not key or header.gso_type != GSO_NONE or len(self._groups) == MAX_GROUPS:
            return False
        if len(packet) + TRANSPORT_OVERHEAD > GROUP_SIZE // 2:
            return False  # there is too little to gain
        cache = self._caches[len(self._groups)]
        first = split(header, packet, cache, mtus)
        if first is None:
            return False
        self._groups[key] = _Group(cache, header, first)
        return True

    def bursts(self, mtus: tuple[int, ...]) -> list[Burst]:
        """A burst for each destination, the last first; then there are none."""
        made = [group.burst(mtus) for group in reversed(self._groups.values())]
        self._groups.clear()
        return made
