"""The two forms in which data moves: inner packets in slots, and outer datagrams end to end.

A transport datagram is its inner packet with 16 bytes before and 16 after (paper, 5.4.6), so the same buffer serves
as both: packets that the TUN reader puts into a `Burst` are sealed in place and leave as `Datagrams`, and vice versa.
Slicing a memoryview costs a tenth of what sealing a packet costs, so a reader, whose buffer stays the same, keeps the
slices in a `ViewCache`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import inf
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self, TypeVar

from wgpy.constants import PADDING_MULTIPLE, TAG_SIZE, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD

# A ViewCache holds at most so many views, at 200 bytes each, and so many arrays over so many packets in all, at 1,500
# bytes for each and 80 for a packet: ever new sizes only empty it. Sends of 1 to 64 packets are 64 shapes. Lists of
# bodies have the same bounds, and take less.
_MAX_VIEWS: Final = 8192
_MAX_MADE: Final = 512
_MAX_MADE_FOR: Final = 1 << 15

_ALONE_FROM: Final = 8  # packets in a row, each of which came alone
_SKIPS_TWICE: Final = 6 + 7  # lone packets between three looks
_REST: Final = 0.01  # seconds; what comes after as long without lone packets is mostly alone

T = TypeVar("T")


class Bodies(NamedTuple):
    """The plaintext of each slot, and the same with its tag."""

    plaintexts: list[memoryview]
    sealed: list[memoryview]


def run_length(values: Sequence[int]) -> int:
    """How many values at the beginning are equal: nearly always all of them."""
    if values.count(values[0]) == len(values):
        return len(values)
    return next(i for i, value in enumerate(values) if value != values[0])


@lru_cache(maxsize=1024)
def padded_length(length: int, mtus: tuple[int, ...]) -> int:
    """Bytes of plaintext that carry a packet of `length` bytes: a multiple of 16, but never past an MTU that it fits.

    `mtus` are in ascending order; without any there is no limit. Of a packet longer than all of them, the remainder is
    padded, as in the kernel (send.c, calculate_skb_padding).
    """
    padded = (length + PADDING_MULTIPLE - 1) & -PADDING_MULTIPLE
    for mtu in mtus:
        if length <= mtu:
            return padded if padded < mtu else mtu
    if not mtus:
        return padded
    tail = length % mtus[-1]
    return length - tail + padded_length(tail, mtus[-1:])


def bodies(view: memoryview, stride: int, cache: ViewCache | None = None) -> Bodies:
    """The bodies of all slots; the last slot may be shorter. The lists may be kept in the cache: change neither."""
    full, total = len(view) // stride, len(view)
    if total <= stride:
        return Bodies([view[TRANSPORT_HEADER_SIZE : total - TAG_SIZE]], [view[TRANSPORT_HEADER_SIZE:]])
    found = Bodies([], [])
    if cache is not None:
        found = cache.bodies(stride, full)
        if full * stride == total:
            return found
        found = Bodies(found.plaintexts.copy(), found.sealed.copy())
    for body in range(len(found.sealed) * stride + TRANSPORT_HEADER_SIZE, total, stride):
        end = min(body - TRANSPORT_HEADER_SIZE + stride, total)
        found.plaintexts.append(view[body : end - TAG_SIZE])
        found.sealed.append(view[body:end])
    return found


class ViewCache:
    """A reader's buffer, and the views of it that were made for the shapes that come again and again."""

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer
        self._views: dict[tuple[int, int, int], list[memoryview]] = {}
        self._views_held = 0
        self._bodies: dict[tuple[int, int], Bodies] = {}
        self._bodies_for = 0
        self._made: dict[tuple[Any, ...], Any] = {}
        self._made_for = 0

    def views(self, at: int, stride: int, size: int, count: int) -> list[memoryview]:
        """The `size` bytes at `at` of each of at least `count` slots, which are `stride` bytes apart."""
        known = self._views.get((at, stride, size))
        if known is None or len(known) < count:
            if self._views_held + count > _MAX_VIEWS:
                self._views.clear()
                self._bodies.clear()
                self._views_held = self._bodies_for = 0
            self._views_held += count
            starts = range(at, at + count * stride, stride)
            known = self._views[at, stride, size] = [self.buffer[start : start + size] for start in starts]
        return known

    def bodies(self, stride: int, count: int) -> Bodies:
        """The bodies of the first `count` slots, all of them full."""
        known = self._bodies.get((stride, count))
        if known is None:
            plaintexts = self.views(TRANSPORT_HEADER_SIZE, stride, stride - TRANSPORT_OVERHEAD, count)
            sealed = self.views(TRANSPORT_HEADER_SIZE, stride, stride - TRANSPORT_HEADER_SIZE, count)
            self._bodies_for += count
            if len(self._bodies) >= _MAX_MADE or self._bodies_for > _MAX_MADE_FOR:
                self._bodies.clear()
                self._bodies_for = count
            known = self._bodies[stride, count] = Bodies(plaintexts[:count], sealed[:count])
        return known

    def recall(self, make: Callable[..., T], at: int, stride: int, count: int, *shape: int) -> T:
        """`make(buffer, at, stride, count, ...)`, made once: views of `count` packets, whatever lies there later."""
        key = (make, at, stride, count, *shape)
        made: T | None = self._made.get(key)
        if made is None:
            self._made_for += count
            if len(self._made) >= _MAX_MADE or self._made_for > _MAX_MADE_FOR:
                self._made.clear()
                self._made_for = count
            made = self._made[key] = make(self.buffer, at, stride, count, *shape)
        return made


class Single:
    """Views of the only slot of a burst or of datagrams; cut once, for a reader may hand over the same one again."""

    __slots__ = ("padding", "plaintext", "sealed", "zeros")

    padding: memoryview
    """What follows the packet in its plaintext."""
    plaintext: memoryview
    """The packet and its padding."""
    sealed: memoryview
    """The same with its tag."""
    zeros: bytes
    """As many bytes as the padding has."""

    def __init__(self, view: memoryview, length: int) -> None:
        self.sealed = view[TRANSPORT_HEADER_SIZE:]
        self.plaintext = self.sealed[:-TAG_SIZE]
        self.padding = self.plaintext[length:]
        self.zeros = bytes(len(self.padding))


class ReadAhead:
    """Whether a reader should read again before it hands over what it has read.

    Packets that come together are cheaper to handle together, but a lone packet would have to wait for a read that
    finds nothing. So when several packets in a row have come alone, the reader looks for more only now and then, and
    not at once after a rest, when the processor's caches have forgotten all that a look takes. If something waits for
    which it did not look, the loop calls again.
    """

    __slots__ = ("_alone", "_asked_at", "_skipped", "_skips")

    def __init__(self) -> None:
        self._alone = 0  # how many packets in a row
        self._asked_at = inf
        self._skipped = 0
        self._skips = _SKIPS_TWICE // 2

    def looks_for_more(self, now: float) -> bool:
        """Ask this after each read that brought a lone packet, at `now` in seconds of any clock.

        When packets come alone, this is true the seventh time, then the eighth, by turns: so packets that have begun to
        come together are noticed, however many they are.
        """
        rested = now - self._asked_at > _REST
        self._asked_at = now
        if rested:
            return False
        if self._alone < _ALONE_FROM:
            return True
        if self._skipped < self._skips:
            self._skipped += 1
            return False
        self._skipped, self._skips = 0, _SKIPS_TWICE - self._skips
        return True

    def looked(self, *, was_alone: bool) -> None:
        """Tell after a look for more whether there was one packet in all."""
        self._alone = self._alone + 1 if was_alone else 0


class Burst:
    """Inner packets in slots of one buffer: slot i starts at `i * stride`, and its packet 16 bytes later.

    A slot leaves 16 bytes after the padded packet for the tag. All packets of an outbound burst have the same
    destination address and the same ECN field, and all but the last the same length when padded.
    """

    __slots__ = ("_alone", "_datagrams", "_single", "cache", "lengths", "stride", "view")

    view: memoryview
    """The slots, writable. It ends after the last slot, whose room may be shorter than `stride`."""
    stride: int
    """Bytes from one slot to the next."""
    lengths: list[int]
    """The length of each packet in bytes; 0 for a slot without one (a keepalive, or a packet that was dropped)."""
    cache: ViewCache | None
    """Views already cut from the reader's buffer that begins with this burst; None for a buffer of its own."""

    def __init__(self, view: memoryview, stride: int, lengths: list[int], cache: ViewCache | None = None) -> None:
        self.view = view
        self.stride = stride
        self.lengths = lengths
        self.cache = cache
        self._alone: memoryview | None = None
        self._datagrams: Datagrams | None = None
        self._single: Single | None = None

    @classmethod
    def of(cls, packet: bytes | bytearray | memoryview, mtu: int = 0) -> Self:
        """A burst of one packet, in a buffer of its own, padded to `mtu` bytes at most; 0: no limit."""
        length = len(packet)
        stride = padded_length(length, (mtu,) if mtu else ()) + TRANSPORT_OVERHEAD
        view = memoryview(bytearray(stride))
        view[TRANSPORT_HEADER_SIZE : TRANSPORT_HEADER_SIZE + length] = packet
        return cls(view, stride, [length])

    def __len__(self) -> int:
        return len(self.lengths)

    def packet(self, i: int) -> memoryview:
        """The packet of slot `i`, without its padding."""
        start = i * self.stride + TRANSPORT_HEADER_SIZE
        return self.view[start : start + self.lengths[i]]

    def alone(self) -> memoryview:
        """The packet of a burst of one; cut once, as `single` is."""
        packet = self._alone
        if packet is None:
            packet = self._alone = self.packet(0)
        return packet

    def packets(self) -> Iterator[memoryview]:
        """The packets that are there, in order."""
        return (self.packet(i) for i, length in enumerate(self.lengths) if length)

    def single(self) -> Single:
        """The views of a burst of one packet."""
        single = self._single
        if single is None:
            single = self._single = Single(self.view, self.lengths[0])
        return single

    def datagrams(self) -> Datagrams:
        """The same slots, which are datagrams once they are sealed."""
        datagrams = self._datagrams
        if datagrams is None:
            datagrams = self._datagrams = Datagrams(self.view, self.stride)
        return datagrams

    def singles(self) -> Iterator[Burst]:
        """Each packet as a burst by itself, in a buffer of its own, with the same padding."""
        for i, length in enumerate(self.lengths):
            if length:
                slot = memoryview(bytearray(self.view[i * self.stride : (i + 1) * self.stride]))
                yield Burst(slot, len(slot), [length])

    def bodies(self) -> Bodies:
        """The padded plaintext of each slot, and the same with room for its tag."""
        return bodies(self.view, self.stride, self.cache)

    def copy(self) -> Burst:
        """The same packets in a buffer of their own, to be kept when the reader reads again."""
        return Burst(memoryview(bytearray(self.view)), self.stride, self.lengths.copy())


class Datagrams:
    """UDP payloads in slots of one buffer, all as long as their slot but the last and the `short` ones."""

    __slots__ = ("_bodies", "_opened", "_single", "cache", "segment_size", "short", "view")

    view: memoryview
    """The payloads. Received ones are writable: they are opened in place."""
    segment_size: int
    """Bytes from one payload to the next, and of nearly all payloads."""
    cache: ViewCache | None
    """Views already cut from the reader's buffer that begins with these; None for a buffer of its own."""
    short: Mapping[int, int]
    """The bytes of each payload before the last that is shorter than its slot, by number: at least 32."""

    def __init__(
        self,
        view: memoryview,
        segment_size: int,
        cache: ViewCache | None = None,
        short: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self.view = view
        self.segment_size = segment_size
        self.cache = cache
        self.short = short
        self._bodies: Bodies | None = None
        self._single: Single | None = None
        self._opened: Burst | None = None

    @classmethod
    def of(cls, datagram: bytes | bytearray) -> Self:
        """One datagram, in a writable buffer of its own (a received datagram is opened in place)."""
        return cls(memoryview(bytearray(datagram)), max(1, len(datagram)))

    def __len__(self) -> int:
        return -(-len(self.view) // self.segment_size)

    def __iter__(self) -> Iterator[memoryview]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> memoryview:
        start = i * self.segment_size
        return self.view[start : start + self.short.get(i, self.segment_size)]

    def single(self) -> Single:
        """The views of a lone datagram; how long its packet is, its header tells."""
        single = self._single
        if single is None:
            single = self._single = Single(self.view, len(self.view) - TRANSPORT_OVERHEAD)
        return single

    def opened(self, length: int) -> Burst:
        """The same slot, if this is a lone datagram that was opened, with a packet of `length` bytes."""
        burst = self._opened
        if burst is None or burst.lengths[0] != length:
            burst = self._opened = Burst(self.view, self.segment_size, [length], self.cache)
        return burst

    def bodies(self) -> Bodies:
        """The bodies, if these are transport datagrams. They are cut once, and used for each run under one key."""
        if self._bodies is None:
            found = bodies(self.view, self.segment_size, self.cache)
            if self.short:
                found = Bodies(found.plaintexts.copy(), found.sealed.copy())
                for i, length in self.short.items():
                    body = self[i][TRANSPORT_HEADER_SIZE:]
                    found.plaintexts[i], found.sealed[i] = body[: length - TRANSPORT_OVERHEAD], body
            self._bodies = found
        return self._bodies
