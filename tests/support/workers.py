"""Several Devices with a share each, put together as the processes of an interface's workers are.

It has the methods of a Device that `World` calls. Datagrams go to the worker that the sockets' filter would choose
(net/queues), packets to any, and what a device hands over is taken over at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from math import inf
from random import Random
from typing import cast
from zlib import crc32

from tests.support.world import Link, World
from wgpy.burst import Burst, Datagrams
from wgpy.constants import MESSAGE_COOKIE_REPLY, MESSAGE_RESPONSE, MESSAGE_TRANSPORT
from wgpy.device.changes import DeviceChange
from wgpy.device.device import Device
from wgpy.device.effects import Effects
from wgpy.device.share import Share
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey

_INDEX_AT = {MESSAGE_TRANSPORT: 4, MESSAGE_COOKIE_REPLY: 4, MESSAGE_RESPONSE: 8}


class Workers:
    """`number` devices that divide the peers. `queue(n)` returns which of n queues the next packets come from."""

    def __init__(
        self,
        number: int,
        *,
        random: Callable[[int], bytes],
        wall_clock: Callable[[], int],
        queue: Callable[[int], int],
    ) -> None:
        def make(worker: int) -> Device:
            return Device(random=random, wall_clock=wall_clock, share=Share(worker, number))

        self._make = make
        self.devices = [make(worker) for worker in range(number)]
        self.served_by: dict[PublicKey, int] = {}  # in the order in which the peers were added
        self._queue = queue
        self._placements = count()

    def worker_for(self, datagram: bytes | memoryview, source: Endpoint) -> int:
        at = _INDEX_AT.get(datagram[0] if len(datagram) >= 12 else 0)
        mask = self.devices[0].share.mask
        worker = crc32(source.packed) if at is None else int.from_bytes(datagram[at : at + 4], "little") & mask
        return worker % len(self.devices)

    def replace(self, worker: int, change: DeviceChange, now: float) -> Effects:
        """One worker has died. Another one takes its place, with the whole configuration, `change`."""
        floor, before = self.timestamp_floor, self.devices[worker]
        device = self.devices[worker] = self._make(worker)
        device.timestamp_floor = floor
        effects = device.configure(self._placed(change), now)
        for public_key in self.served_by:
            device.refuse_initiations(public_key, before.last_initiation(public_key))
        return self._finish(effects, device.start(now), now=now)

    # What a Device does.

    @property
    def timestamp_floor(self) -> int:
        return max(device.timestamp_floor for device in self.devices)

    @timestamp_floor.setter
    def timestamp_floor(self, nanoseconds: int) -> None:
        for device in self.devices:
            device.timestamp_floor = nanoseconds

    def start(self, now: float) -> Effects:
        return self._finish(*(device.start(now) for device in self.devices), now=now)

    def stop(self) -> None:
        for device in self.devices:
            device.stop()

    def forget_sessions(self) -> None:
        for device in self.devices:
            device.forget_sessions()

    def send(self, burst: Burst | bytes, now: float) -> Effects:
        return self._finish(self.devices[self._queue(len(self.devices))].send(burst, now), now=now)

    def receive(
        self, datagrams: Datagrams, source: Endpoint, now: float, ecn: int = 0, *, under_load: bool = False
    ) -> Effects:
        device = self.devices[self.worker_for(datagrams.view, source)]
        return self._finish(device.receive(datagrams, source, now, ecn, under_load=under_load), now=now)

    def next_timeout(self) -> float | None:
        found = min(device.next_timeout() or inf for device in self.devices)
        return None if found == inf else found

    def handle_timeout(self, now: float) -> Effects:
        return self._finish(*(device.handle_timeout(now) for device in self.devices), now=now)

    def configure(self, change: DeviceChange, now: float) -> Effects:
        change = self._placed(change)
        return self._finish(*(device.configure(change, now) for device in self.devices), now=now)

    def status(self) -> DeviceStatus:
        each = [device.status() for device in self.devices]
        rows = {peer.public_key: peer for status in each for peer in status.peers}
        assert len(rows) == sum(len(status.peers) for status in each), "a peer has two workers"
        peers = tuple(rows[key] for key in self.served_by if key in rows)
        assert len(peers) == len(rows)
        drops = sum((Counter(status.drops) for status in each), Counter())
        return replace(each[0], peers=peers, drops=drops, handed_over=sum(status.handed_over for status in each))

    # How they are put together.

    def _placed(self, change: DeviceChange) -> DeviceChange:
        """The change with a worker for each peer, as the control process gives it to all workers."""
        if change.replace_peers:
            self.served_by.clear()
        peers = []
        for peer in change.peers:
            if peer.remove:
                self.served_by.pop(peer.public_key, None)
            elif peer.worker is not None:
                self.served_by[peer.public_key] = peer.worker
            elif peer.public_key not in self.served_by and not peer.update_only:
                self.served_by[peer.public_key] = next(self._placements) % len(self.devices)
            peers.append(replace(peer, worker=self.served_by.get(peer.public_key)))
        return replace(change, peers=tuple(peers))

    def _finish(self, *parts: Effects, now: float) -> Effects:
        """All effects in one, after each handover was taken over."""
        whole = Effects()
        waiting = list(parts)
        for effects in waiting:
            whole.transmits += effects.transmits
            whole.deliveries += effects.deliveries
            whole.events += effects.events
            whole.unanswered += effects.unanswered
            for handover in effects.handovers:
                taken = self.devices[handover.worker].take_over(handover, now)
                assert not taken.handovers, "nothing is handed over twice"
                waiting.append(taken)
        return whole


class WorkersWorld(World):
    """A world in which each host has `workers` of them."""

    def __init__(self, seed: int = 0, link: Link | None = None, *, workers: int) -> None:
        super().__init__(seed, link)
        self.workers = workers
        self.queues = Random(seed)  # which packets come from, so that all else is as in a World of the same seed

    def device(self, wall_clock: Callable[[], int]) -> Device:
        workers = Workers(
            self.workers, random=self.random.randbytes, wall_clock=wall_clock, queue=self.queues.randrange
        )
        return cast(Device, workers)


def devices_of(device: Device) -> list[Device]:
    """A host's device, or those of all its workers."""
    return device.devices if isinstance(device, Workers) else [device]
