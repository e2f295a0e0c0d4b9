"""The control process of an interface with several workers: it carries no packets, and keeps what there is one of.

It has the configuration, in a Device that never starts; the port, the TUN's queues and the links between workers, of
which each worker gets its own; the names of endpoints, and the link's state. A change of the configuration is checked
here, and then goes whole to every worker: each knows whose every prefix is, and serves the peers that are its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

from wgpy.config import wg
from wgpy.config.values import InterfaceConfig, Offloads
from wgpy.configured import Configured
from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.device.effects import Event
from wgpy.device.status import DeviceStatus, PeerStatus, WorkerStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import ControlError, TunError, WgpyError
from wgpy.fields import expect
from wgpy.keys import PublicKey
from wgpy.net.monitor import Monitor
from wgpy.net.resolve import in_slices, resolved_change
from wgpy.tun.attach import set_in_use
from wgpy.tun.linux import LinuxTun
from wgpy.workers.channel import Kind, Message, encoded
from wgpy.workers.handover import connect_workers
from wgpy.workers.messages import (
    pack_change,
    pack_initiations,
    pack_sessions,
    unpack_event,
    unpack_hosts,
    unpack_key,
    unpack_log,
    unpack_unanswered,
)
from wgpy.workers.placement import Placement, gaining
from wgpy.workers.port import Port
from wgpy.workers.process import WorkerEnded, WorkerProcess
from wgpy.workers.seat import Seat
from wgpy.workers.timestamps import TimestampFloor

log: Final = logging.getLogger("wgpy")

PEERS_AT_ONCE: Final = 256  # in one message
STATUS_PATIENCE: Final = 2.0  # seconds; a worker that does not answer by then is shown as it was
CHANGE_PATIENCE: Final = 10.0  # seconds; `wg set` waits for a worker that hangs no longer than this


class WorkerPool:
    """An interface with `len(queues)` workers, each with one of these queues of its TUN (`LinuxTun.open_queues`).

    The methods are those of `daemon.interface.Interface`. `on_event`, `on_unanswered` and `keylog` are called as by a
    Tunnel.
    """

    sessions: Callable[[], tuple[PublicKey, Mapping[PublicKey, tuple[Endpoint, float]]] | None]
    """Asked for the sessions of the peers that a new process is to greet (`Device.resume`)."""

    def __init__(
        self,
        config: InterfaceConfig,
        *,
        queues: list[int],
        on_event: Callable[[Event], None],
        on_unanswered: Callable[[], None],
        keylog: Callable[[str, bytes], None] | None,
        offloads: Offloads,
    ) -> None:
        self.sessions = lambda: None
        self._offloads = offloads & config.offloads
        self._queues = queues
        self._tun = LinuxTun.adopt(os.dup(queues[0]), offload=self._offloads.tun)  # never read: asked about the link
        self._links = connect_workers(len(queues))
        self._seats = [
            Seat(number, queue, [links[other] for other in sorted(links)])
            for number, (queue, links) in enumerate(zip(queues, self._links, strict=True))
        ]
        self._device = Device(random=os.urandom, wall_clock=time.time_ns)
        self._floor = TimestampFloor(self._device)
        self._placement = Placement(len(queues))
        self._configured = Configured(config, self._peer_moved)
        self._on_event = on_event
        self._on_unanswered = on_unanswered
        self._keylog = keylog
        self._port: Port | None = None
        self._changing = asyncio.Lock()  # held while the configuration, the port or the link's state changes
        self._monitor: Monitor | None = None
        self._is_follow_due = False
        self._link = (False, self._tun.mtu)  # whether it is up, and its MTU in bytes
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._is_started = self._is_closing = False

    @property
    def name(self) -> str:
        return self._tun.name

    @property
    def public_key(self) -> PublicKey | None:
        return self._device.public_key

    @property
    def timestamp_floor(self) -> int:
        """As `Device.timestamp_floor`: the latest that control has heard of."""
        return self._floor.latest

    @timestamp_floor.setter
    def timestamp_floor(self, nanoseconds: int) -> None:
        self._floor.restore(nanoseconds)

    def knows(self, public_key: PublicKey) -> bool:
        return self._device.knows(public_key)

    def name_of(self, public_key: PublicKey) -> str:
        return self._configured.name_of(public_key)

    # Life.

    async def start(self, *, up: bool) -> None:
        """As `Tunnel.start`. Raises ControlError, too, if a worker cannot be started."""
        change = await resolved_change(self._configured.config)
        change.check(())
        self._take(replace(change, peers=()))
        async for peers in in_slices(change.peers):
            self._take(DeviceChange(peers=peers))
        self._placement.keep(self._device.knows)
        if up:
            self._port = self._open_port()
        await self._bring_up(self._seats)
        self._is_started = True
        for seat in self._seats:
            if seat.process is None:  # it ended while the others were still being set up
                self._spawn(self._replace(seat, 0.0))
        self._configured.names.start()

    def _open_port(self) -> Port:
        port = self._new_port(self._device.listen_port, self._device.fwmark)
        self._device.listen_port = port.number
        return port

    def _new_port(self, number: int, fwmark: int) -> Port:
        port = Port(number, len(self._seats), fwmark=fwmark)
        port.set_absent(self._absent())
        return port

    def _absent(self) -> list[int]:
        return [seat.number for seat in self._seats if seat.is_absent]

    async def _bring_up(self, seats: Sequence[Seat]) -> None:
        """Start a process in each seat, and have it carry packets once it knows everything. Raises ControlError."""
        begin = {
            "count": len(self._seats),
            "offloads": asdict(self._offloads),
            "keylog": self._keylog is not None,
            "level": log.getEffectiveLevel(),
        }
        for seat in seats:
            told, ended = partial(self._told, seat), partial(self._ended, seat)
            seat.started(WorkerProcess(self.name, seat.number, told=told, ended=ended))
        await asyncio.gather(
            *(
                seat.ask(Kind.BEGIN, begin | {"number": seat.number, "floor": self.timestamp_floor}, seat.fds())
                for seat in seats
            )
        )
        async with self._changing:
            whole = [encoded(pack_change(part)) for part in self._everything()]
            await asyncio.gather(*(self._set_up(seat, whole) for seat in seats))

    async def _set_up(self, seat: Seat, whole: Sequence[bytes]) -> None:
        if sessions := self.sessions():
            owner, known = sessions
            own = {key: session for key, session in known.items() if self._serves(seat, key)}
            seat.send(Kind.RESUME, pack_sessions(owner, own))
        await asyncio.gather(*(seat.ask(Kind.CONFIGURE, part) for part in whole))
        seat.send(Kind.INITIATIONS, pack_initiations(self._initiations(seat)))
        seat.is_ready = True
        seat.send(Kind.ROUTES, self._routes())
        if self._port is not None:
            seat.send(Kind.UP, fds=self._port.sockets(seat.number))
        else:
            await seat.ask(Kind.DOWN)
        self._set_absent(seat, is_absent=False)

    def _set_absent(self, seat: Seat, *, is_absent: bool) -> None:
        """Keep new flows and initiations from a worker that will not serve them soon, or let it have them again."""
        if is_absent == seat.is_absent:
            return
        seat.is_absent = is_absent
        with suppress(OSError):  # then its queue keeps its share
            set_in_use(seat.queue, in_use=not is_absent)
        if self._port is not None:
            self._port.set_absent(self._absent())

    def _everything(self) -> Iterator[DeviceChange]:
        """The changes that give a new worker the whole configuration."""
        change = wg.restoring(self._device.status(), DeviceStatus())
        yield replace(change, fwmark=self._device.fwmark, peers=())
        for start in range(0, len(change.peers), PEERS_AT_ONCE):
            peers = change.peers[start : start + PEERS_AT_ONCE]
            yield self._placement.place(DeviceChange(peers=peers))

    def _initiations(self, seat: Seat) -> dict[PublicKey, bytes]:
        """When each peer's last initiation was stamped, as far as control has heard."""
        own = (key for key in self._placement.placed if self._serves(seat, key))
        stamped = ((key, self._device.last_initiation(key)) for key in own)
        return {key: timestamp for key, timestamp in stamped if any(timestamp)}

    def _serves(self, seat: Seat, public_key: PublicKey) -> bool:
        return self._device.knows(public_key) and self._placement.of(public_key) == seat.number

    def _ended(self, seat: Seat, pid: int, how: str) -> None:
        """A process has ended: start another, unless the interface is gone."""
        delay = seat.ended()
        if self._is_closing or not self._is_started:
            return
        try:
            self._tun.link()
        except TunError as error:
            self._fail(error)
            return
        self._floor.worker_ended()
        if delay:
            self._set_absent(seat, is_absent=True)
        later = f" in {delay:g} seconds" if delay else ""
        log.error("(%s) worker %d (process %d) %s; another is started%s", self.name, seat.number, pid, how, later)
        self._spawn(self._replace(seat, delay))

    async def _replace(self, seat: Seat, delay: float) -> None:
        while True:
            await asyncio.sleep(delay)
            try:
                await self._bring_up([seat])
            except WorkerEnded:  # and so `_ended` was called
                return
            except ControlError as error:
                log.error("(%s) worker %d: %s", self.name, seat.number, error)
                if seat.process is not None:
                    seat.process.kill(str(error))
                    return
                delay = seat.ended()
            else:
                return

    async def close(self) -> None:
        """End the workers, and with them the interface. Closing twice is harmless."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._monitor is not None:
            self._monitor.close()
        self._configured.names.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(seat.process.end() for seat in self._seats if seat.process is not None))
        if self._port is not None:
            self._port.close()
        for links in self._links:
            for link in links.values():
                link.close()
        for queue in self._queues:
            os.close(queue)
        self._tun.close()
        if not self._closed.done():
            self._closed.set_result(None)

    def check(self) -> None:
        """Kill the workers that have not answered since the last call, so that they are replaced; ask the others."""
        for seat in self._ready():
            seat.check()

    def _fail(self, error: TunError) -> None:
        if not self._closed.done():
            self._closed.set_exception(error)
            self._closed.exception()  # marked as seen: nobody has to wait for it

    async def wait_closed(self) -> None:
        """As `Tunnel.wait_closed`; the pool is not closed yet if it raises."""
        await asyncio.shield(self._closed)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def logged() -> None:
            try:
                await work
            except WgpyError as error:
                log.error("(%s) %s", self.name, error)

        self._begin(logged())

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The link.

    def follow_link(self) -> None:
        """As `Tunnel.follow_link`."""
        self._monitor = Monitor(self._loop, self._link_changed)
        self._link_changed()

    def _link_changed(self) -> None:
        try:
            link = self._tun.link()
            if self._monitor and self._monitor.listen_in_other_namespace(wanted=self._tun.is_in_other_namespace):
                link = self._tun.link()  # it may have changed before we listened
        except TunError as error:
            self._fail(error)
            return
        self._link = link or (self._port is not None, self._tun.mtu)
        if not self._is_follow_due:
            self._is_follow_due = True
            self._spawn(self._follow())

    async def _follow(self) -> None:
        """Have the workers do what the link's state and the routes want."""
        async with self._changing:
            self._is_follow_due = False
            is_up, self._tun.mtu = self._link
            self._to_all(Kind.ROUTES, self._routes())
            if is_up and self._port is None:
                self._port = port = self._open_port()
                for seat in self._ready():
                    seat.send(Kind.UP, fds=port.sockets(seat.number))
            elif not is_up and self._port is not None:
                self._port.close()
                self._port = None
                await asyncio.gather(*(self._tell(seat, Kind.DOWN) for seat in self._ready()))  # the port is free then

    def _routes(self) -> dict[str, Any]:
        return {"mtu": self._tun.mtu, "route_mtus": sorted(self._tun.route_mtus)}

    def _ready(self) -> list[Seat]:
        return [seat for seat in self._seats if seat.is_ready]

    def _to_all(self, kind: Kind, body: dict[str, Any] | bytes = b"") -> None:
        for seat in self._ready():
            seat.send(kind, body)

    # What workers tell.

    def _told(self, seat: Seat, message: Message) -> None:
        """Raises ControlError for what no worker says."""
        match message.kind:
            case Kind.EVENT:
                event, floor, initiation = unpack_event(message.json())
                self._floor.report(floor)
                if self._serves(seat, event.public_key):
                    self._remember(event)
                    self._device.refuse_initiations(event.public_key, initiation)
                    self._on_event(event)
            case Kind.UNANSWERED:
                public_key, endpoint, floor = unpack_unanswered(message.json())
                self._floor.report(floor)
                if self._serves(seat, public_key):
                    self._configured.names.unanswered(public_key, endpoint)
                    self._on_unanswered()
            case Kind.HOSTS:
                hosts = unpack_hosts(message.json())
                if self._port is not None and self._port.add_hosts(hosts):
                    self._to_all(Kind.HOSTS_FORGOTTEN)
            case Kind.KEYS:
                if self._keylog is not None:
                    self._keylog(*unpack_key(message.json()))
            case Kind.LOG:
                level, name, text = unpack_log(message.json())
                logging.getLogger(name).log(level, "%s", text)
            case _:
                raise ControlError(f"a message {message.kind.name}")

    def _remember(self, event: Event) -> None:
        """Where the peer is now, so that a process that replaces its worker's knows it."""
        if event.endpoint is not None and event.reason is None:
            change = PeerChange(public_key=event.public_key, update_only=True, endpoint=event.endpoint.without_source())
            self._device.configure(DeviceChange(peers=(change,)), 0.0)

    # Configuration and status.

    async def configure(self, change: DeviceChange) -> None:
        """As `Tunnel.configure`."""
        expect("change", change, DeviceChange)

        async def apply() -> None:
            await self._change(change)
            self._configured.changed(change)

        await self._to_its_end(apply())

    async def reconfigure(self, config: InterfaceConfig) -> None:
        """As `Tunnel.reconfigure`."""
        change = await self._configured.change(config)

        async def apply() -> None:
            async with self._changing:
                synchronizing = wg.synchronizing(change, self._device.status())
                await self._apply(replace(synchronizing, listen_port=config.listen_port or None, fwmark=None))
            self._configured.take(config)

        await self._to_its_end(apply())

    async def _to_its_end(self, change: Coroutine[Any, Any, None]) -> None:
        """Make a change even if whoever wants it is cancelled: half made, workers would disagree about a prefix."""
        await asyncio.shield(self._begin(change))

    def _peer_moved(self, public_key: PublicKey, endpoint: Endpoint) -> None:
        change = PeerChange(public_key=public_key, update_only=True, endpoint=endpoint)
        self._spawn(self._change(DeviceChange(peers=(change,))))

    async def _change(self, change: DeviceChange) -> None:
        async with self._changing:
            await self._apply(change)

    async def _apply(self, change: DeviceChange) -> None:
        """Change everything or nothing: what can fail is done first, and then those that gain something are told."""
        change.check(self._placement.placed)
        before, opened = self._port, None
        if before is not None and change.listen_port is not None and change.listen_port != before.number:
            fwmark = self._device.fwmark if change.fwmark is None else change.fwmark
            opened = self._port = self._new_port(change.listen_port, fwmark)
            change = replace(change, listen_port=opened.number)
        elif before is not None and change.fwmark is not None:
            before.set_fwmark(change.fwmark)
        placed = self._take(change)
        self._placement.keep(self._device.knows)
        if self._port is not None:
            self._device.listen_port = self._port.number
        body, first = encoded(pack_change(placed)), gaining(placed)
        for is_first in (True, False):
            those = [seat for seat in self._ready() if (seat.number in first) == is_first]
            await asyncio.gather(*(self._tell(seat, Kind.CONFIGURE, body, opened) for seat in those))
        if opened is not None and before is not None:
            before.close()

    def _take(self, change: DeviceChange) -> DeviceChange:
        """Make a change that was checked in control; the change, with each peer's worker."""
        self._device.configure(change, 0.0)
        return self._placement.place(change)

    async def _tell(self, seat: Seat, kind: Kind, body: bytes = b"", port: Port | None = None) -> None:
        try:
            await seat.ask(kind, body, port.sockets(seat.number) if port else (), CHANGE_PATIENCE)
        except WorkerEnded:  # the process that replaces it gets everything
            pass
        except ControlError as error:
            if seat.process is not None:
                seat.process.kill(f"could not be configured: {error}")

    async def status(self) -> DeviceStatus:
        """As `Tunnel.status`: the configuration as control has it, the counters as the workers have them."""
        of_workers = await asyncio.gather(*(seat.status(STATUS_PATIENCE) for seat in self._seats))
        whole = self._device.status()
        drops: Counter[str] = Counter()
        counted: dict[PublicKey, PeerStatus] = {}
        for seat, status in zip(self._seats, of_workers, strict=True):
            drops.update(status.drops)
            counted |= {peer.public_key: peer for peer in status.peers if self._serves(seat, peer.public_key)}
        return self._configured.named(
            replace(
                whole,
                peers=tuple(_with_counters(peer, counted.get(peer.public_key)) for peer in whole.peers),
                drops=dict(drops),
                handed_over=sum(status.handed_over for status in of_workers),
                workers=tuple(
                    WorkerStatus(
                        pid=seat.process.pid if seat.process else 0,
                        peers=self._placement.counts[seat.number],
                        handed_over=status.handed_over,
                        replaced=seat.replaced,
                    )
                    for seat, status in zip(self._seats, of_workers, strict=True)
                ),
            )
        )


def _with_counters(peer: PeerStatus, counted: PeerStatus | None) -> PeerStatus:
    if counted is None:
        return peer
    return replace(
        counted,
        preshared_key=peer.preshared_key,
        allowed_ips=peer.allowed_ips,
        persistent_keepalive=peer.persistent_keepalive,
    )
