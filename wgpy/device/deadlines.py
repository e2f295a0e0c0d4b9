"""When the device has to look at which peer's timers."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from wgpy.device.peer import Peer
from wgpy.keys import PublicKey


class Deadlines:
    """A heap with the earliest deadline of each peer that has one.

    Nearly every packet moves a deadline later. That costs nothing: the old entry stays, and when its time comes the
    deadline is looked up again.
    """

    earliest: float
    """No deadline is earlier, in seconds of `now`; it is that of a deadline that may have moved since."""

    def __init__(self, peers: Mapping[PublicKey, Peer]) -> None:
        self._peers = peers
        self.earliest = inf
        self._heap: list[tuple[float, int, Peer]] = []
        self._tiebreak = count()

    def __len__(self) -> int:
        return len(self._heap)

    def note(self, peer: Peer) -> None:
        """Note the peer's next deadline, if it is earlier than the noted one. Call this after each change of timers."""
        at = peer.timers.next_at()
        if at < peer.wakes_at:
            peer.wakes_at = at
            heappush(self._heap, (at, next(self._tiebreak), peer))
            if len(self._heap) > 2 * len(self._peers) + 64:  # mostly deadlines that have moved since
                noted = (peer for peer in self._peers.values() if peer.wakes_at < inf)
                self._heap = [(peer.wakes_at, next(self._tiebreak), peer) for peer in noted]
                heapify(self._heap)
            self.earliest = self._heap[0][0]

    def next(self) -> tuple[float, Peer] | None:
        """The earliest deadline, in seconds of `now`, and whose it is; None when nothing is pending."""
        while self._heap:
            at, _, peer = self._heap[0]
            due = peer.timers.next_at()
            if at == peer.wakes_at == due:
                self.earliest = at
                return at, peer
            heappop(self._heap)  # the deadline has moved since it was noted
            if at == peer.wakes_at:
                peer.wakes_at = inf
                self.note(peer)
        self.earliest = inf
        return None
