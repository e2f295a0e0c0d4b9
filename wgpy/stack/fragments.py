"""Putting fragments together again (RFC 791, 3.2; RFC 8200, 4.5; RFC 5722), within a bound of memory and time."""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import Final, NamedTuple

from wgpy.stack.ip import Drop, Packet

LASTS: Final = 30.0  # seconds: the kernel's ipfrag_time
MAX_DATAGRAMS: Final = 64  # that wait for the rest, and
MAX_BYTES: Final = 1 << 20  # what they hold together
MAX_PIECES: Final = 64  # of one datagram
_MAX_SIZE: Final = 65535

_Key = tuple[bytes, bytes, int, int]


class _Part(NamedTuple):
    start: int
    data: bytes


class _Waiting:
    __slots__ = ("ecn", "length", "parts", "since", "size")

    def __init__(self, now: float) -> None:
        self.since = now
        self.parts: list[_Part] = []
        self.size = 0
        self.length: int | None = None  # of the whole, once the last fragment has come
        self.ecn = 0


class Fragments:
    """Datagrams of which not all fragments have come. A full memory forgets the oldest."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[_Key, _Waiting] = OrderedDict()
        self._bytes = 0

    def take(self, packet: Packet, now: float) -> Packet | Drop | None:
        """Take in a fragment: the whole packet if it was the last that lacked, None while some do."""
        assert packet.fragment is not None
        identification, start, more = packet.fragment
        key = (packet.source, packet.destination, packet.protocol if len(packet.source) == 4 else 0, identification)
        data = bytes(packet.payload)
        end = start + len(data)
        if not data or end > _MAX_SIZE or (more and len(data) % 8):
            return Drop.FRAGMENT
        self._expire(now)
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(now)
        parts = waiting.parts
        overlaps = any(part.start < end and start < part.start + len(part.data) for part in parts)
        is_beyond = waiting.length is not None and (end > waiting.length or (not more and end != waiting.length))
        if overlaps or is_beyond or len(parts) >= MAX_PIECES:
            if any(part == (start, data) for part in parts):
                return None  # the same again
            self._forget(key)  # whoever sends such means to deceive (RFC 5722, 3)
            return Drop.FRAGMENT
        parts.append(_Part(start, data))
        waiting.size += len(data)
        waiting.ecn |= packet.ecn
        self._bytes += len(data)
        if not more:
            waiting.length = end
        if waiting.length is not None and waiting.size >= waiting.length:
            self._forget(key)
            if waiting.size > waiting.length:
                return Drop.FRAGMENT
            whole = memoryview(b"".join(part.data for part in sorted(parts)))
            return packet._replace(payload=whole, fragment=None, ecn=waiting.ecn)
        while len(self._waiting) > MAX_DATAGRAMS or self._bytes > MAX_BYTES:
            self._forget(next(iter(self._waiting)))
        return None

    def next_timeout(self) -> float:
        """When the oldest is given up."""
        return next(iter(self._waiting.values())).since + LASTS if self._waiting else inf

    def _expire(self, now: float) -> None:
        while self.next_timeout() <= now:
            self._forget(next(iter(self._waiting)))

    def _forget(self, key: _Key) -> None:
        self._bytes -= self._waiting.pop(key).size
