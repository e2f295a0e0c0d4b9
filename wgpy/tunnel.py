"""Tunnel: one Device between one TUN and one UDP port, on one asyncio loop.

Three callbacks, each a straight line: the TUN is readable, a UDP socket is readable, a deadline has come. Each reads,
calls the device, and carries out the effects before it reads again, because a burst lies in its reader's buffer.
When the UDP socket is full, reading the TUN pauses until it is not: the host's queue is the right place to wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final, Self

from wgpy.burst import Datagrams
from wgpy.config import wg
from wgpy.config.values import ALL_OFFLOADS, EndpointName, InterfaceConfig, Offloads, PeerConfig, expect_config
from wgpy.datapath import MAX_WAITING, READS_PER_WAKEUP, SUSPENDED_FROM, Tun, Udp, UdpHost, machine_clock
from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.device.effects import DropReason, Effects, Event, EventKind, Transmit
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import ConfigError, HandshakeTimeout, SocketError, TunError, TunnelClosedError, WgpyError
from wgpy.events import Events
from wgpy.fields import Field, expect
from wgpy.keys import PublicKey
from wgpy.net.monitor import Monitor
from wgpy.net.names import Names
from wgpy.net.resolve import resolved_change
from wgpy.net.udp import UdpSockets
from wgpy.system.forks import FORKED, abandon_in_child

log = logging.getLogger("wgpy")

_PEER: Final = Field((PublicKey,), "a PublicKey or its base64", PublicKey.from_base64)


class Tunnel:
    """A running WireGuard interface.

    ::

        async with Tunnel(config, tun=LinuxTun.open("wg0")) as tunnel:
            print(tunnel.status())
            await tunnel.wait_closed()

    `config` comes from `wgpy.config.parse(text).config`; its addresses, routes, DNS and hooks are for `wgpy up` alone.
    `on_event` is called for each Event; of a peer that moves with every packet, for the first move and then for the
    last one of each second. `keylog` is as for `Device`. `offloads` and the configuration may each forbid what the UDP
    port would use; open the TUN accordingly: `LinuxTun.open("wg0", offload=config.offloads.tun)`. `tun` and `udp` may
    be your own. `clock` counts seconds as the loop's timers do; with a virtual loop's, all time is virtual.
    """

    config: InterfaceConfig
    """What was given, or the last configuration given to `reconfigure`."""
    device: Device
    """The protocol, to be read only: the tunnel does not carry out what you call on it."""
    on_unanswered: Callable[[], None] | None
    """Called, if it is set, after each initiation without an answer, whether that is news or not."""

    def __init__(
        self,
        config: InterfaceConfig,
        *,
        tun: Tun,
        udp: UdpHost = UdpSockets,
        clock: Callable[[], float] = machine_clock,
        on_event: Callable[[Event], None] | None = None,
        keylog: Callable[[str, bytes], None] | None = None,
        offloads: Offloads = ALL_OFFLOADS,
    ) -> None:
        expect_config(config)
        self.config = config
        self._clock = clock
        wall_clock = time.time_ns if clock is machine_clock else lambda: int(clock() * 1e9)
        self.device = Device(random=os.urandom, wall_clock=wall_clock, keylog=keylog)
        self._tun = tun
        self._udp_host = udp
        self._events = Events(lambda: self.name, on_event)
        self.on_unanswered = None
        self._offloads = offloads & config.offloads
        self._udp: Udp | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._waiting: list[Transmit] = []
        self._labels = _labels(config)
        self._names = Names(_endpoint_names(config), self._peer_moved)
        self._clock_awake = time.monotonic if clock is machine_clock else clock  # does not count time spent suspended
        self._suspended = clock() - self._clock_awake()
        self._monitor: Monitor | None = None
        self._closed: asyncio.Future[None] | None = None
        self._why_closed = ""
        abandon_in_child(self)

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._tun.name

    @property
    def mtu(self) -> int:
        """The inner MTU in bytes."""
        return self._tun.mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        self._tun.mtu = self.device.mtu = mtu

    def endpoints(self) -> list[Endpoint]:
        """The addresses of the peers that have one."""
        return [peer.endpoint for peer in self.status().peers if peer.endpoint]

    @property
    def listen_port(self) -> int:
        """The UDP port in use; 0 before the tunnel is up."""
        return self._udp.port if self._udp else 0

    # Life.

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    async def start(self, *, up: bool = True) -> None:
        """Resolve the endpoints, take the configuration on, and unless `up` is False begin to carry packets.

        Raises NetworkError for an endpoint that cannot be resolved, SocketError for a port that cannot be opened.
        """
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        change = await resolved_change(self.config)
        self.device.mtu = self._tun.mtu
        self._carry_out(self.device.configure(change, self._clock()))
        if up:
            self.up()
        self._tun.start_reading(self._loop, self._tun_readable)
        self._names.start()

    def up(self) -> None:
        """Open the sockets and begin to carry packets, as when the link comes up. Raises SocketError."""
        if self._udp is not None:
            return
        self._udp = self._udp_host.open(self.device.listen_port, fwmark=self.device.fwmark, offloads=self._offloads)
        self.device.listen_port = self._udp.port
        self._udp.start_reading(self._loop, self._udp_readable)
        self._carry_out(self.device.start(self._clock()))
        self._set_timer()

    def down(self) -> None:
        """Close the sockets and forget sessions, as when the link goes down; the port and the configuration stay."""
        if self._udp is None:
            return
        udp, self._udp = self._udp, None
        self._stop_udp(udp)
        if self._waiting:
            for transmit in self._waiting:
                self._discard(transmit, DropReason.INTERFACE_DOWN)
            self._waiting.clear()
            self._tun.start_reading(self._loop, self._tun_readable)
        self.device.stop()
        self._cancel_timer()

    def follow_link(self) -> None:
        """From now on go up and down with the interface, take over its MTU, and let new routes choose source addresses.

        It is followed into another network namespace, too; where that is not permitted, it is taken to be as it was.
        """
        self._monitor = Monitor(self._loop, self._link_changed)
        self._link_changed()

    def _link_changed(self) -> None:
        self.device.forget_sources()
        if self._udp is not None:
            self._udp.forget_refusals()
        try:
            link = self._tun.link()
            if self._monitor and self._monitor.listen_in_other_namespace(wanted=self._tun.is_in_other_namespace):
                link = self._tun.link()  # it may have changed before we listened
        except TunError as error:
            self._fail(error)
            return
        if link is None:
            return
        is_up, self.mtu = link
        if not is_up:
            self.down()
            return
        try:
            self.up()
        except SocketError as error:
            log.error("(%s) %s", self.name, error)

    def close(self) -> None:
        """Stop carrying packets; sessions and keys are gone afterwards. Closing twice is harmless."""
        self._why_closed = self._why_closed or "the tunnel is closed"
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        self._names.close()
        self._events.close()
        self.down()
        self._tun.close()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def abandon(self) -> None:
        """In a fork's child: carry nothing any more. The parent goes on."""
        self._why_closed = FORKED
        udp, self._udp, self._monitor = self._udp, None, None
        self._waiting.clear()
        if udp is not None:
            udp.close()

    async def wait_closed(self) -> None:
        """Wait until the tunnel is closed. Raises TunError when that was because its interface went away."""
        assert self._closed is not None, "start the tunnel first"
        await asyncio.shield(self._closed)

    def check_open(self) -> None:
        """Raises TunnelClosedError before the tunnel is started, once it is closed, and in a fork's child."""
        if self._closed is None or self._why_closed:
            raise TunnelClosedError(self._why_closed or "the tunnel has not been started")

    # Events.

    def events(self) -> AsyncIterator[Event]:
        """Every Event from now on, until the tunnel is closed; of the moves of a peer, those that `on_event` is told.

        At most 10,000 wait to be taken. Newer ones are then dropped, and counted in `events_dropped`.
        """
        return self._events.subscribe()

    @property
    def events_dropped(self) -> int:
        """How many events found no room in the queues of `events()`."""
        return self._events.dropped

    async def wait_for_handshake(self, peer: PublicKey, timeout: float = 10.0) -> None:  # noqa: ASYNC109
        """Wait until there is a session with the peer, `timeout` seconds at most, and begin one if there is none.

        A peer without an endpoint has to begin itself.
        Raises ConfigError for a key that is no peer's, HandshakeTimeout, TunnelClosedError.
        """
        peer = _PEER.take("peer", peer)
        self.check_open()
        events = self.events()
        known = next((status for status in self.status().peers if status.public_key == peer), None)
        if known is None:
            raise ConfigError(f"{peer.short()} is not a peer of this tunnel")
        if self.device.has_session(peer, self._clock()):
            return
        if known.endpoint is not None and not known.persistent_keepalive:
            for keepalive in (1, 0):  # when turned on, a keepalive is sent at once, and needs a session
                change = PeerChange(public_key=peer, update_only=True, persistent_keepalive=keepalive)
                self.configure(DeviceChange(peers=(change,)))
        try:
            async with asyncio.timeout(timeout):
                async for event in events:
                    if event.kind is EventKind.HANDSHAKE_COMPLETED and event.public_key == peer:
                        return
        except TimeoutError:
            raise HandshakeTimeout(_silence(peer, known.endpoint, timeout)) from None
        raise TunnelClosedError("the tunnel was closed")

    # Data.

    def _tun_readable(self) -> None:
        now = self._wake()
        try:
            for _ in range(READS_PER_WAKEUP):
                burst = self._tun.read()
                if burst is None:
                    break
                self._carry_out(self.device.send(burst, now))
                if self._waiting:
                    break
        except TunError as error:
            self._fail(error)
            return
        self._set_timer()

    def _udp_readable(self, sock: socket.socket) -> bool:
        """Whether anything came of what was read."""
        now = self._wake()
        udp, was_worth_it = self._udp, False
        try:
            for _ in range(READS_PER_WAKEUP):
                if udp is None or (received := udp.receive(sock)) is None:
                    break
                datagrams, source, ecn, under_load = received
                effects = self.device.receive(datagrams, source, now, ecn, under_load=under_load)
                was_worth_it = was_worth_it or effects.involves_peers
                self._carry_out(effects)
                if self._udp is not udp:  # an event's receiver has closed us, or changed the port
                    return True
        except TunError as error:
            self._fail(error)
            return True
        self._set_timer()
        return was_worth_it

    def _wake(self) -> float:
        """The time, for all that is done until the loop waits again; sessions are forgotten if the machine slept.

        The loop's timers sleep with it, so the one that is set would come late.
        """
        now = self._clock()
        suspended = now - self._clock_awake()
        if suspended - self._suspended > SUSPENDED_FROM:
            self._suspended = suspended
            self._cancel_timer()
            self.device.forget_sessions()
        return now

    def _deadline_came(self) -> None:
        self._timer = self._timer_at = None
        try:
            self._carry_out(self.device.handle_timeout(self._wake()))
        except TunError as error:
            self._fail(error)
            return
        self._set_timer()

    def _set_timer(self) -> None:
        """Wake for the next deadline; that one has moved later, as most do, is found out when its old time comes."""
        at = self.device.next_timeout()
        if at is None or (self._timer_at is not None and self._timer_at <= at):
            return
        self._cancel_timer()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - self._clock()), self._deadline_came)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timer_at = None

    def _carry_out(self, effects: Effects) -> None:
        for transmit in effects.transmits:
            self._transmit(transmit)
        for burst in effects.deliveries:
            self._tun.write(burst)
        for public_key, endpoint in effects.unanswered:
            self._names.unanswered(public_key, endpoint)
            if self.on_unanswered is not None:
                self.on_unanswered()
        for event in effects.events:
            self._events.happened(event)

    def _transmit(self, transmit: Transmit) -> None:
        if self._udp is None:
            return
        if self._waiting:
            self._wait_writable(transmit)
            return
        result = self._udp.send(transmit.datagrams, transmit.endpoint, transmit.traffic_class)
        if result.source_stale and transmit.public_key is not None:
            self.device.forget_source(transmit.public_key)
        if result.refused:
            self.device.not_sent(transmit, result.refused, result.refused_bytes, DropReason.SEND_REFUSED)
        if result.remaining is not None:
            self._wait_writable(transmit._replace(datagrams=result.remaining))

    def _wait_writable(self, transmit: Transmit) -> None:
        """Keep what did not fit, in a buffer of its own, and hold the TUN until the socket takes it."""
        if len(self._waiting) >= MAX_WAITING or self._udp is None:
            self._discard(transmit, DropReason.SOCKET_FULL)
            return
        datagrams = transmit.datagrams
        kept = Datagrams(memoryview(bytearray(datagrams.view)), datagrams.segment_size)
        sock = self._udp.socket_for(transmit.endpoint)
        if not self._waiting and sock is not None:
            self._tun.stop_reading()
            self._loop.add_writer(sock.fileno(), self._writable, sock)
        self._waiting.append(transmit._replace(datagrams=kept))

    def _discard(self, transmit: Transmit, reason: DropReason) -> None:
        datagrams = transmit.datagrams
        self.device.not_sent(transmit, len(datagrams), len(datagrams.view), reason)

    def _writable(self, sock: socket.socket) -> None:
        self._loop.remove_writer(sock.fileno())
        self._send_waiting()

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transmit in waiting:
            self._transmit(transmit)
        if not self._waiting and self._udp is not None:
            self._tun.start_reading(self._loop, self._tun_readable)

    def _fail(self, error: WgpyError) -> None:
        if self._closed is not None and not self._closed.done():
            self._closed.set_exception(error)
            self._closed.exception()  # marked as seen: nobody has to wait for it
        self.close()

    def _stop_udp(self, udp: Udp) -> None:
        udp.stop_reading(self._loop)
        for sock in udp.sockets:
            self._loop.remove_writer(sock.fileno())
        udp.close()

    # Configuration and status.

    def configure(self, change: DeviceChange) -> None:
        """Apply a change to the running tunnel, all of it or nothing.

        An endpoint given here is not looked up again, even if the configuration gave a name.
        Raises ConfigError for a value out of range, SocketError when the new port cannot be opened.
        """
        expect("change", change, DeviceChange)
        self._configure(change)
        for peer in change.peers:
            if peer.endpoint or peer.remove:
                self._names.forget(peer.public_key)

    async def reconfigure(self, config: InterfaceConfig) -> None:
        """Become what `config` says, but for the mark, all of it or nothing; peers that stay keep their sessions.

        An address or a port that the configuration leaves open stays as it is, and so does one that a name led to.
        Raises NetworkError for an endpoint that cannot be resolved, SocketError when the new port cannot be opened.
        """
        expect_config(config)
        peers = [self._unless_followed(peer) for peer in config.peers]
        change = await resolved_change(replace(config, peers=tuple(peers)))
        change = wg.synchronizing(change, self.device.status())
        self._configure(replace(change, listen_port=config.listen_port or None, fwmark=None))
        self.config = config
        self._labels = _labels(config)
        self._names.follow(_endpoint_names(config))
        self._names.start()

    def _unless_followed(self, peer: PeerConfig) -> PeerConfig:
        followed = peer.endpoint and self._names.follows(peer.public_key, peer.endpoint)
        return replace(peer, endpoint=None) if followed else peer

    def _peer_moved(self, public_key: PublicKey, endpoint: Endpoint) -> None:
        self._configure(DeviceChange(peers=(PeerChange(public_key=public_key, update_only=True, endpoint=endpoint),)))

    def _configure(self, change: DeviceChange) -> None:
        now = self._wake()
        reopened: Udp | None = None
        if self._udp and change.listen_port is not None and change.listen_port != self._udp.port:
            fwmark = self.device.fwmark if change.fwmark is None else change.fwmark
            reopened = self._udp_host.open(change.listen_port, fwmark=fwmark, offloads=self._offloads)
        elif self._udp and change.fwmark is not None:
            self._udp.set_fwmark(change.fwmark)
        try:
            effects = self.device.configure(change, now)
        except ConfigError:
            if reopened is not None:
                reopened.close()
            raise
        if reopened is not None and self._udp is not None:
            self._stop_udp(self._udp)
            self._udp = reopened
            self._udp.start_reading(self._loop, self._udp_readable)
            if self._waiting:
                self._send_waiting()
        if self._udp is not None:
            self.device.listen_port = self._udp.port
        self._carry_out(effects)
        self._set_timer()

    def name_of(self, public_key: PublicKey) -> str:
        """What the configuration calls a peer; empty if it does not."""
        return self._labels.get(public_key, "")

    def status(self) -> DeviceStatus:
        """What `wg show` tells, as values. It holds the private key; its repr does not show it."""
        status = self.device.status()
        if not self._labels:
            return status
        named = tuple(replace(peer, name=self.name_of(peer.public_key)) for peer in status.peers)
        return replace(status, peers=named)


def _labels(config: InterfaceConfig) -> dict[PublicKey, str]:
    return {peer.public_key: peer.name for peer in config.peers if peer.name}


def _endpoint_names(config: InterfaceConfig) -> dict[PublicKey, EndpointName]:
    return {peer.public_key: peer.endpoint for peer in config.peers if peer.endpoint}


def _silence(peer: PublicKey, endpoint: Endpoint | None, timeout: float) -> str:
    if endpoint is None:
        return f"{peer.short()} has not called for {timeout:g} s: it has no Endpoint, so it must begin"
    hint = "check the Endpoint, both public keys, and that UDP passes"
    return f"{peer.short()} at {endpoint} has not answered for {timeout:g} s: {hint}"
