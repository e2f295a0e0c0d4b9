"""When the device has to look at which peer's timers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from wgpy.device.peer import Peer
from wgpy.keys import PublicKey


class Deadlines:
    """A heap with the earliest deadline of each peer that has one.

    Nearly every packet moves a deadline later. That costs nothing: the old entry stays, and when its time comes the
    deadline is looked up again. What a packet changes is looked at when somebody asks, after the packet was sent.
    """

    note: Callable[[Peer], None]
    """Note that a peer's deadlines may have changed. Call this after each change of timers."""

    def __init__(self, peers: Mapping[PublicKey, Peer]) -> None:
        self._peers = peers
        self._heap: list[tuple[float, int, Peer]] = []
        self._tiebreak = count()
        self._changed: dict[Peer, None] = {}
        self.note = self._changed.setdefault

    def __len__(self) -> int:
        return len(self._heap)

    def earliest(self) -> float:
        """No deadline is earlier, in seconds of `now`; it is that of a deadline that may have moved since."""
        if self._changed:
            self._enter_changed()
        return self._heap[0][0] if self._heap else inf

    def next(self) -> tuple[float, Peer] | None:
        """The earliest deadline, in seconds of `now`, and whose it is; None when nothing is pending."""
        self._enter_changed()
        while self._heap:
            at, _, peer = self._heap[0]
            due = peer.timers.next_at()
            if at == peer.wakes_at == due:
                return at, peer
            heappop(self._heap)  # the deadline has moved since it was noted
            if at == peer.wakes_at:
                peer.wakes_at = inf
                if due < inf:
                    self._enter(peer, due)
        return None

    def _enter_changed(self) -> None:
        for peer in self._changed:
            at = peer.timers.next_at()
            if at < peer.wakes_at:  # else the one that was entered comes first
                self._enter(peer, at)
        self._changed.clear()

    def _enter(self, peer: Peer, at: float) -> None:
        """Enter the peer's next deadline."""
        peer.wakes_at = at
        heappush(self._heap, (at, next(self._tiebreak), peer))
        if len(self._heap) > 2 * len(self._peers) + 64:  # mostly deadlines that have moved since
            entered = (peer for peer in self._peers.values() if peer.wakes_at < inf)
            self._heap = [(peer.wakes_at, next(self._tiebreak), peer) for peer in entered]
            heapify(self._heap)
