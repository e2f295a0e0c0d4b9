"""Which worker serves which peer, and how a change reaches them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from wgpy.device.changes import DeviceChange
from wgpy.keys import PublicKey


class Placement:
    """A peer is placed, when it is added, on the worker with the fewest peers, and stays there.

    A hash of its key would need no table, but divides eight peers badly.
    """

    def __init__(self, workers: int) -> None:
        self._workers: dict[PublicKey, int] = {}
        self.counts: list[int] = [0] * workers
        """How many peers each worker has."""

    def of(self, public_key: PublicKey) -> int:
        """The number of a peer's worker. Raises KeyError."""
        return self._workers[public_key]

    @property
    def placed(self) -> Collection[PublicKey]:
        """The peers that have a worker."""
        return self._workers.keys()

    def place(self, change: DeviceChange) -> DeviceChange:
        """The change with each peer's worker. Peers that it adds are placed; `keep` forgets those that it removes."""
        if change.replace_peers:
            stay = {peer.public_key for peer in change.peers}
            self.keep(stay.__contains__)
        peers = []
        for peer in change.peers:
            worker = self._workers.get(peer.public_key)
            if worker is None and not (peer.remove or peer.update_only):
                worker = self._workers[peer.public_key] = self.counts.index(min(self.counts))
                self.counts[worker] += 1
            peers.append(replace(peer, worker=worker))
        return replace(change, peers=tuple(peers))

    def keep(self, is_present: Callable[[PublicKey], bool]) -> None:
        """Forget the peers that are not present any more."""
        for public_key in [key for key in self._workers if not is_present(key)]:
            self.counts[self._workers.pop(public_key)] -= 1


def gaining(change: DeviceChange) -> set[int]:
    """The workers whose peers may get something by a change that was placed: they must learn of it before the others.

    If the worker that loses a prefix were told first, it would hand packets for it to one that does not know yet whose
    they are.
    """
    return {peer.worker for peer in change.peers if peer.worker is not None and not peer.remove}
