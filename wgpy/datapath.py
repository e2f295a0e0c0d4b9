"""The data path: one Device between one TUN and one UDP port, on one asyncio loop.

Three callbacks, each a straight line: the TUN is readable (wireguard-go's device/send.go, RoutineReadFromTUN), a UDP
socket is readable (device/receive.go, RoutineReceiveIncoming), a deadline has come. Each reads, calls the device, and
carries out the effects before it reads again, because a burst lies in its reader's buffer. When the UDP socket is full,
the TUN is not read until there is room again: packets had better wait in the host's queue.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from wgpy.burst import Burst, Datagrams
from wgpy.config.values import ALL_OFFLOADS, Offloads
from wgpy.device.device import Device
from wgpy.device.effects import DropReason, Effects, Handover, Sealed, Transmit
from wgpy.endpoint import Endpoint
from wgpy.errors import TunError
from wgpy.net.datagrams import SENT, Received, SendResult

# How much is read from the TUN before the other side and the timers get their turn: one burst of long super-packets, or
# more that are shorter. It is counted in packets; a burst costs as much as BURST_WORK packets do, beside what it holds.
WORK_PER_WAKEUP: Final = 100
BURST_WORK: Final = 8
READS_PER_WAKEUP: Final = 2  # bursts that another worker has handed over, likewise
# Transmits that may wait while a socket is full: the TUN is not read then, but handshakes and keepalives come.
MAX_WAITING: Final = 256
MAX_LEFT: Final = 1024  # bursts that the TUN may hold when the link goes down: its queue has room for 500 packets

# Seconds that the machine must have slept for the sessions to be forgotten (kernel device.c, wg_pm_notification).
SUSPENDED_FROM: Final = 1.0

_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", None)


class Tun(Protocol):
    """What a tunnel needs of a TUN: `LinuxTun` and `MemoryTun` are two."""

    name: str
    mtu: int
    bursts_at_once: int  # from a socket, before the other side and the timers get their turn
    is_dry: bool  # most likely nothing waits behind what was read last: if something does, the loop will call

    def read(self) -> Burst | None: ...
    def write(self, burst: Burst) -> None: ...
    def flush(self) -> None: ...
    @property
    def is_in_other_namespace(self) -> bool: ...
    def link(self) -> tuple[bool, int] | None: ...
    def start_reading(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None: ...
    def stop_reading(self) -> None: ...
    def close(self) -> None: ...


class Udp(Protocol):
    """What a tunnel needs of an open UDP port: `UdpSockets`, `PlainUdp` and `MemoryUdp` are three."""

    port: int

    @property
    def sockets(self) -> Sequence[socket.socket]: ...
    def start_reading(self, loop: asyncio.AbstractEventLoop, readable: Callable[[Any], bool]) -> None: ...
    def stop_reading(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def receive(self, sock: Any) -> Received | None: ...
    def send(self, datagrams: Datagrams, endpoint: Endpoint, traffic_class: int) -> SendResult: ...
    def socket_for(self, endpoint: Endpoint) -> socket.socket | None: ...
    def set_fwmark(self, mark: int) -> None: ...
    def forget_refusals(self) -> None: ...
    def close(self) -> None: ...


class Mesh(Protocol):
    """What a worker's tunnel needs to hand over packets: `workers.handover.HandoverMesh` is one."""

    def start_reading(self, loop: asyncio.AbstractEventLoop, callback: Callable[[socket.socket], None]) -> None: ...
    def stop_reading(self) -> None: ...
    def receive(self, sock: socket.socket) -> Handover | None: ...
    def send(self, handover: Handover) -> bool: ...
    def close(self) -> None: ...


class UdpHost(Protocol):
    """Where a tunnel opens its UDP port: the machine, which is `MachineUdp` itself, or a `MemoryHost`."""

    def open(self, port: int = 0, *, fwmark: int = 0, offloads: Offloads = ALL_OFFLOADS) -> Udp: ...


if sys.platform == "linux":
    from wgpy.net.udp import UdpSockets

    MachineUdp: UdpHost = UdpSockets
else:
    from wgpy.net.plain import PlainUdp

    MachineUdp = PlainUdp


machine_clock: Callable[[], float] = partial(time.clock_gettime, _BOOTTIME) if _BOOTTIME is not None else time.monotonic
"""Seconds of CLOCK_BOOTTIME, which counts time spent suspended: the device's `now`. Elsewhere, time.monotonic's."""


class DataPath:
    """Carries the packets of `device` and keeps its deadlines while a UDP port is open.

    `clock` returns the device's `now`, in seconds. `report` is called with effects that have events or unanswered
    initiations, `fail` when the TUN has gone away. `mesh` leads to the other workers, if the device has but a share.
    """

    udp: Udp | None
    """The port in use; None while the interface is down."""
    follows_link: bool
    """Whether the port is opened when we hear that the TUN's link is up, which is a little later: then packets wait in
    the TUN while the port is closed. Otherwise they are dropped."""

    def __init__(
        self,
        device: Device,
        tun: Tun,
        clock: Callable[[], float],
        *,
        report: Callable[[Effects], None],
        fail: Callable[[TunError], None],
        mesh: Mesh | None = None,
    ) -> None:
        self._device = device
        self._mesh = mesh
        self._tun = tun
        self._clock = clock
        self._report = report
        self._fail = fail
        self.udp = None
        self.follows_link = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._waiting: list[Transmit] = []
        self._is_started = False
        self._clock_awake = time.monotonic if clock is machine_clock else clock  # does not count time spent suspended
        self._woke = clock()
        self._suspended = self._woke - self._clock_awake()

    def start(self) -> None:
        """Begin to read the TUN, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._is_started = True
        self._start_reading()

    def _start_reading(self) -> None:
        if not self._is_started:
            return
        self._tun.start_reading(self._loop, self._tun_readable)
        if self._mesh is not None:
            self._mesh.start_reading(self._loop, self._handed_over)

    def _stop_reading(self) -> None:
        self._tun.stop_reading()
        if self._mesh is not None:
            self._mesh.stop_reading()

    def open(self, udp: Udp) -> None:
        """Send and receive through this port from now on, in the running loop; a port used before is closed."""
        self._loop = asyncio.get_running_loop()
        before, self.udp = self.udp, udp
        if before is not None:
            self._close(before)
        udp.start_reading(self._loop, self._udp_readable)
        if self._waiting:
            self._send_waiting()
        else:
            self._start_reading()

    def drop_held(self) -> None:
        """Drop what the TUN holds, after the link went down (kernel device.c, wg_stop). The device must be stopped."""
        with suppress(TunError):  # it has gone away
            for _ in range(MAX_LEFT):
                if (burst := self._tun.read()) is None:
                    return
                self._device.send(burst, self._clock())

    def close(self) -> None:
        """Close the port. What waits for it is dropped, and the timer is cancelled."""
        udp, self.udp = self.udp, None
        if udp is not None:
            self._close(udp)
        if self._waiting:
            for transmit in self._waiting:
                self._discard(transmit, DropReason.INTERFACE_DOWN)
            self._waiting.clear()
            self._start_reading()
        self._cancel_timer()

    def _close(self, udp: Udp) -> None:
        udp.stop_reading(self._loop)
        for sock in udp.sockets:
            self._loop.remove_writer(sock.fileno())
        udp.close()

    def abandon(self) -> None:
        """In a fork's child: close the copies of the sockets, and leave the loop alone."""
        udp, self.udp = self.udp, None
        self._waiting.clear()
        if udp is not None:
            udp.close()

    def _tun_readable(self) -> None:
        now = self.wake()
        try:
            if self.udp is None and self.follows_link:
                self._tun.link()  # has it gone away?
                self._tun.stop_reading()
                return
            work = 0
            while work < WORK_PER_WAKEUP and (burst := self._tun.read()) is not None:
                work += BURST_WORK + len(burst.lengths)
                if (sealed := self._device.send_straight(burst, now)) is not None:
                    result = self._send(sealed)
                    self._device.sent(sealed, now)
                    if result is not SENT:
                        self._keep_rest(Transmit(*sealed), result)
                else:
                    self.carry_out(self._device.send(burst, now))
                if self._waiting or self._tun.is_dry:
                    break
        except TunError as error:
            self._fail(error)
            return
        self.finish()

    def _udp_readable(self, sock: socket.socket) -> bool:
        """Read and handle datagrams of one socket; whether a peer was involved (net/schedule prefers such sockets)."""
        now = self.wake()
        udp, was_worth_it = self.udp, False
        try:
            bursts = self._tun.bursts_at_once
            while bursts:
                bursts -= 1
                if udp is None or (received := udp.receive(sock)) is None:
                    break
                datagrams, source, ecn = received.datagrams, received.source, received.ecn
                if received.is_alone and (length := self._device.receive_lone(datagrams, source, now, ecn)) >= 0:
                    if length:
                        self._tun.write(datagrams.opened(length))
                        was_worth_it = True
                    break
                effects = self._device.receive(
                    datagrams, source, now, ecn, under_load=received.under_load, senders=received.senders
                )
                self.carry_out(effects)
                if effects.deliveries or effects.involves_peers:
                    was_worth_it = True
                if self.udp is not udp:  # an event's receiver has closed us, or changed the port
                    was_worth_it = True
                    break
                if received.is_alone:
                    break
        except TunError as error:
            self._fail(error)
            return True
        self.finish()
        return was_worth_it

    def _handed_over(self, sock: socket.socket) -> None:
        """Read and handle what one other worker has handed over."""
        if self.udp is None and self.follows_link:
            if self._mesh is not None:
                self._mesh.stop_reading()
            return
        now = self.wake()
        try:
            for _ in range(READS_PER_WAKEUP):
                if self._mesh is None or (handover := self._mesh.receive(sock)) is None:
                    break
                self.carry_out(self._device.take_over(handover, now))
                if self._waiting:
                    break
        except TunError as error:
            self._fail(error)
            return
        self.finish()

    def wake(self) -> float:
        """The time for all that is done until the loop waits again. If the machine slept, sessions are forgotten.

        The loop's clock stands still while the machine sleeps, so a timer set before would come late: it is cancelled.
        """
        before, now = self._woke, self._clock()
        self._woke = now
        if now - before > SUSPENDED_FROM:
            suspended = now - self._clock_awake()
            if suspended - self._suspended > SUSPENDED_FROM:
                self._suspended = suspended
                self._cancel_timer()
                self._device.forget_sessions()
        return now

    def _deadline_came(self) -> None:
        self._timer = self._timer_at = None
        try:
            self.carry_out(self._device.handle_timeout(self.wake()))
        except TunError as error:
            self._fail(error)
            return
        self.finish()

    def finish(self) -> None:
        """When all that came is carried out: the TUN handles what it was given, and the loop calls us for the deadline.

        A deadline that has moved later, as most do with each packet, is noticed when its old time comes.
        """
        self._tun.flush()
        if self._timer_at is not None and self._timer_at <= self._device.quiet_until():
            return
        at = self._device.next_timeout()
        if at is None or (self._timer_at is not None and self._timer_at <= at):
            return
        self._cancel_timer()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - self._clock()), self._deadline_came)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timer_at = None

    def carry_out(self, effects: Effects) -> None:
        """Transmit, hand over, deliver, report. Raises TunError when the TUN has gone away."""
        for transmit in effects.transmits:
            self._transmit(transmit)
        for handover in effects.handovers:
            if self._mesh is None or not self._mesh.send(handover):
                self._device.not_handed_over(handover, DropReason.HANDOVER_FULL)
        for burst in effects.deliveries:
            self._tun.write(burst)
        if effects.unanswered or effects.events:
            self._report(effects)

    def _transmit(self, transmit: Transmit) -> None:
        if (result := self._send(transmit)) is not SENT:
            self._keep_rest(transmit, result)

    def _send(self, transmit: Transmit | Sealed) -> SendResult:
        """Send, if the port is open, and if nothing waits already; what comes of it is `_keep_rest`'s."""
        datagrams, endpoint, traffic_class, _ = transmit
        if self.udp is None:
            return SENT
        return self.udp.send(datagrams, endpoint, traffic_class) if not self._waiting else SendResult(datagrams)

    def _keep_rest(self, transmit: Transmit, result: SendResult) -> None:
        """Tell the device what the system refused, and keep what the socket did not take."""
        if result.source_stale and transmit.public_key is not None:
            self._device.forget_source(transmit.public_key)
        if result.refused:
            self._device.not_sent(transmit, result.refused, result.refused_bytes, DropReason.SEND_REFUSED)
        if result.remaining is not None:
            self._wait_writable(transmit._replace(datagrams=result.remaining))

    def _wait_writable(self, transmit: Transmit) -> None:
        """Keep what the socket did not take, in a buffer of its own, and read no more of the TUN until it does."""
        if len(self._waiting) >= MAX_WAITING or self.udp is None:
            self._discard(transmit, DropReason.SOCKET_FULL)
            return
        datagrams = transmit.datagrams
        kept = Datagrams(memoryview(bytearray(datagrams.view)), datagrams.segment_size)
        sock = self.udp.socket_for(transmit.endpoint)
        if not self._waiting and sock is not None:
            self._stop_reading()
            self._loop.add_writer(sock.fileno(), self._writable, sock)
        self._waiting.append(transmit._replace(datagrams=kept))

    def _discard(self, transmit: Transmit, reason: DropReason) -> None:
        datagrams = transmit.datagrams
        self._device.not_sent(transmit, len(datagrams), len(datagrams.view), reason)

    def _writable(self, sock: socket.socket) -> None:
        self._loop.remove_writer(sock.fileno())
        self._send_waiting()

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transmit in waiting:
            self._transmit(transmit)
        if not self._waiting and self.udp is not None:
            self._start_reading()
