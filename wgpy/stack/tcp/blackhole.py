"""Paths that lose long packets without a word: segments become shorter, and longer ones are tried again (RFC 4821).

Silence has other causes, such as a phone without signal. So one long segment is sent as soon as short ones pass: if it
arrives, the path had only been interrupted.
"""

from __future__ import annotations

from math import inf
from typing import Final

from wgpy.stack import ip
from wgpy.stack.tcp.flights import Leaving
from wgpy.stack.tcp.framing import DEFAULT_MSS, Framing
from wgpy.stack.tcp.header import HEADER_SIZE
from wgpy.stack.tcp.sending import Sender

MSS: Final = 1220  # what every path of IPv6 takes
_FIRST, _SECOND = 2, 4  # timeouts in a row, after which segments are made shorter (RFC 4821, 7.7)
AGAIN: Final = 600.0  # seconds until a long segment is tried again: the kernel's net.ipv4.tcp_probe_interval


class BlackHole:
    """What is suspected of one path. Times are seconds, MTUs bytes."""

    __slots__ = ("_probe_end", "_probe_start", "_try_at", "mtu")

    def __init__(self) -> None:
        self.mtu: int = 0  # before segments were made shorter; 0: they were not
        self._try_at = -inf
        self._probe_start = self._probe_end = 0

    def suspect(self, timeouts: int, framing: Framing) -> int | None:
        """The MTU to go on with after so many timeouts in a row; None: as before."""
        if timeouts not in (_FIRST, _SECOND):
            return None
        address = framing.names.remote
        mss = MSS if timeouts == _FIRST else DEFAULT_MSS[len(address)]
        if framing.segment > mss:
            self.mtu = self.mtu or framing.mtu
        return mss + ip.header_size(address) + HEADER_SIZE

    def probe(self, sender: Sender, framing: Framing, now: float) -> Leaving | None:
        """One segment of the old length, if it is time for it and there are bytes for it."""
        size = framing.segment_of(self.mtu)
        room = min(sender.end, sender.acknowledged + sender.window) - sender.next
        is_busy = self._probe_end or sender.is_recovering or sender.sacked
        if not self.mtu or now < self._try_at or is_busy or room < size:
            return None
        self._try_at, self._probe_start, self._probe_end = now + AGAIN, sender.next, sender.next + size
        return Leaving(sender.next, self._probe_end, False)

    def is_probe(self, leaving: Leaving) -> bool:
        """Whether that is the one long segment. If it leaves again, it was lost."""
        is_probe = leaving[:2] == (self._probe_start, self._probe_end) and not leaving.is_repeated
        if leaving.is_repeated and leaving.start < self._probe_end and self._probe_start < leaving.end:
            self._probe_end = 0
        return is_probe

    def found(self, acknowledged: int) -> int | None:
        """Everything before this offset has come. The MTU that has proved to pass, if there is news of it."""
        if not self._probe_end or acknowledged < self._probe_end:
            return None
        mtu, self.mtu, self._probe_end = self.mtu, 0, 0
        return mtu
