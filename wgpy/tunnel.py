"""Tunnel: a running interface, from its start to its end.

It brings a Device up and down with the link, gives it its configuration, and tells what happens to its peers; the
packets are carried by datapath.py. wireguard-go's device/device.go has the same job.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Final, Self

from wgpy.config import wg
from wgpy.config.values import ALL_OFFLOADS, InterfaceConfig, Offloads
from wgpy.configured import Configured
from wgpy.constants import MAX_MTU, MIN_MTU
from wgpy.datapath import DataPath, MachineUdp, Mesh, Tun, UdpHost, machine_clock
from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.device.device import Device
from wgpy.device.effects import Effects, Event, EventKind
from wgpy.device.share import Share
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import ConfigError, HandshakeTimeout, SocketError, TunError, TunnelClosedError, WgpyError
from wgpy.events import Events
from wgpy.fields import Field, expect
from wgpy.keys import PublicKey
from wgpy.net.monitor import Monitor
from wgpy.net.resolve import in_slices, resolved_change
from wgpy.net.sources import lost_sources
from wgpy.system.forks import FORKED, abandon_in_child

log: Final = logging.getLogger("wgpy")

_MTU: Final = Field((int,), "a number of bytes, 68 to 65535", accepts=lambda mtu: MIN_MTU <= mtu <= MAX_MTU)
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
    be your own. `clock` counts seconds as the loop's timers do; with a virtual loop's, all time is virtual. `share` is
    as for `Device`, and `mesh` leads to the other workers.
    """

    device: Device
    """The protocol, to be read only: the tunnel does not carry out what you call on it."""
    on_unanswered: Callable[[], None] | None
    """Called, if it is set, after each initiation without an answer, whether that is an event or not."""

    def __init__(
        self,
        config: InterfaceConfig,
        *,
        tun: Tun,
        udp: UdpHost = MachineUdp,
        clock: Callable[[], float] = machine_clock,
        on_event: Callable[[Event], None] | None = None,
        keylog: Callable[[str, bytes], None] | None = None,
        offloads: Offloads = ALL_OFFLOADS,
        share: Share = Share(),  # noqa: B008 (frozen)
        mesh: Mesh | None = None,
    ) -> None:
        self._configured = Configured(config, self._peer_moved)
        self._clock = clock
        wall_clock = time.time_ns if clock is machine_clock else lambda: int(clock() * 1e9)
        self.device = Device(random=os.urandom, wall_clock=wall_clock, keylog=keylog, share=share)
        self._tun = tun
        self._udp_host = udp
        self._mesh = mesh
        self._events = Events(lambda: self.name, on_event)
        self.on_unanswered = None
        self._offloads = offloads & config.offloads
        self._path = DataPath(self.device, tun, clock, report=self._report, fail=self._fail, mesh=mesh)
        self._monitor: Monitor | None = None
        self._closed: asyncio.Future[None] | None = None
        self._why_closed = ""
        abandon_in_child(self)

    @property
    def config(self) -> InterfaceConfig:
        """What was given, or the last configuration given to `reconfigure`."""
        return self._configured.config

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._tun.name

    @property
    def mtu(self) -> int:
        """The inner MTU in bytes, 68 to 65535; setting it to anything else raises ConfigError.

        A tunnel with network="namespace" takes over another by `reconfigure` only.
        """
        return self._tun.mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        self._take_over_mtu(_MTU.take("mtu", mtu))

    def _take_over_mtu(self, mtu: int) -> None:
        self._tun.mtu = self.device.mtu = mtu

    def endpoints(self) -> list[Endpoint]:
        """The addresses of the peers that have one."""
        return self.status().endpoints()

    @property
    def listen_port(self) -> int:
        """The UDP port in use; 0 before the tunnel is up."""
        return self._path.udp.port if self._path.udp else 0

    # Life.

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    async def start(self, *, up: bool = True) -> None:
        """Resolve the endpoints' names, apply the configuration, and unless `up` is False begin to carry packets.

        Raises NetworkError for an endpoint that cannot be resolved, SocketError for a port that cannot be opened.
        """
        self._begin()
        change = await resolved_change(self.config)
        change.check(())
        self._path.carry_out(self.device.configure(replace(change, peers=()), self._clock()))
        if up:
            self.up()
        async for peers in in_slices(change.peers):
            self._configure(DeviceChange(peers=peers))
        self._path.start()
        self._configured.names.start()

    def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self.device.mtu = self._tun.mtu

    def up(self) -> None:
        """Open the sockets and begin to carry packets, as when the link comes up. Raises SocketError."""
        if self._path.udp is not None:
            return
        udp = self._udp_host.open(self.device.listen_port, fwmark=self.device.fwmark, offloads=self._offloads)
        self.device.listen_port = udp.port
        self._path.open(udp)
        self._path.carry_out(self.device.start(self._clock()))
        self._path.finish()

    def down(self) -> None:
        """Close the sockets and forget sessions, as when the link goes down; the port and the configuration stay."""
        if self._path.udp is None:
            return
        self.device.stop()
        self._path.close()
        if self._path.follows_link:
            self._path.drop_held()

    def follow_link(self) -> None:
        """From now on go up and down with the interface, use its MTU, and let better routes choose source addresses.

        It is followed into another network namespace, too. Where that is not permitted, its last state is kept. What is
        sent through the interface before we hear that it is up waits until then.
        """
        self._path.follows_link = True
        self._monitor = Monitor(self._loop, self._link_changed)
        self._link_changed()

    def _routes_changed(self) -> None:
        for public_key in lost_sources(self.device.sources(), self.device.fwmark):
            self.device.forget_source(public_key)
        if self._path.udp is not None:
            self._path.udp.forget_refusals()

    def _link_changed(self) -> None:
        self._routes_changed()
        try:
            link = self._tun.link()
            if self._monitor and self._monitor.listen_in_other_namespace(wanted=self._tun.is_in_other_namespace):
                link = self._tun.link()  # it may have changed before we listened
        except TunError as error:
            self._fail(error)
            return
        if link is None:
            return
        is_up, mtu = link
        self._take_over_mtu(mtu)
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
        self._configured.names.close()
        self._events.close()
        self.device.stop()
        self._path.close()
        self._tun.close()
        if self._mesh is not None:
            self._mesh.close()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def abandon(self) -> None:
        """In a fork's child: carry nothing any more. The parent goes on."""
        self._why_closed = FORKED
        self._monitor = None
        self._path.abandon()

    def _fail(self, error: WgpyError) -> None:
        if self._closed is not None and not self._closed.done():
            self._closed.set_exception(error)
            self._closed.exception()  # marked as seen: nobody has to wait for it
        self.close()

    async def wait_closed(self) -> None:
        """Wait until the tunnel is closed. Raises TunError if it was closed because its interface went away."""
        assert self._closed is not None, "start the tunnel first"
        await asyncio.shield(self._closed)

    def check_open(self) -> None:
        """Raises TunnelClosedError before the tunnel is started, once it is closed, and in a fork's child."""
        if self._closed is None or self._why_closed:
            raise TunnelClosedError(self._why_closed or "the tunnel has not been started")

    # Events.

    def _report(self, effects: Effects) -> None:
        for public_key, endpoint in effects.unanswered:
            self._configured.names.unanswered(public_key, endpoint)
            if self.on_unanswered is not None:
                self.on_unanswered()
        for event in effects.events:
            self._events.happened(event)

    def events(self) -> AsyncIterator[Event]:
        """Every Event from now on until the tunnel is closed; of a peer's moves, those that `on_event` gets.

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

    # Configuration and status.

    def configure(self, change: DeviceChange) -> None:
        """Apply a change to the running tunnel, all of it or nothing.

        An endpoint given here is not looked up again, even if the configuration gave a name.
        Raises ConfigError for a value out of range, SocketError when the new port cannot be opened.
        """
        expect("change", change, DeviceChange)
        self._configure(change)
        self._configured.changed(change)

    async def reconfigure(self, config: InterfaceConfig) -> None:
        """Apply `config`, except its firewall mark, all of it or nothing; peers that stay keep their sessions.

        An endpoint or a port that the configuration leaves open stays as it is, and so does an address that was found
        by the name that the configuration still gives.
        Raises NetworkError for an endpoint that cannot be resolved, SocketError when the new port cannot be opened.
        """
        change = wg.synchronizing(await self._configured.change(config), self.device.status())
        self._configure(replace(change, listen_port=config.listen_port or None, fwmark=None))
        self._configured.take(config)

    def _peer_moved(self, public_key: PublicKey, endpoint: Endpoint) -> None:
        self._configure(DeviceChange(peers=(PeerChange(public_key=public_key, update_only=True, endpoint=endpoint),)))

    def _configure(self, change: DeviceChange) -> None:
        now = self._path.wake()
        udp, reopened = self._path.udp, None
        if udp is not None and change.listen_port is not None and change.listen_port != udp.port:
            fwmark = self.device.fwmark if change.fwmark is None else change.fwmark
            reopened = self._udp_host.open(change.listen_port, fwmark=fwmark, offloads=self._offloads)
        elif udp is not None and change.fwmark is not None:
            udp.set_fwmark(change.fwmark)
        try:
            effects = self.device.configure(change, now)
        except ConfigError:
            if reopened is not None:
                reopened.close()
            raise
        if reopened is not None:
            self._path.open(reopened)
        if self._path.udp is not None:
            self.device.listen_port = self._path.udp.port
        self._path.carry_out(effects)
        self._path.finish()

    def peer_at(self, host: str) -> PublicKey | None:
        """The peer whose allowed IPs contain a numeric address, so the only one that can send from it; None if none.

        A server in the tunnel learns by this who calls: `tunnel.peer_at(writer.get_extra_info("peername")[0])`.
        Raises ValueError for what is no address.
        """
        address = ip_address(host.partition("%")[0])
        return self.device.peer_at((getattr(address, "ipv4_mapped", None) or address).packed)

    def name_of(self, public_key: PublicKey) -> str:
        """The name that the configuration gives a peer; empty if it gives none."""
        return self._configured.name_of(public_key)

    def status(self) -> DeviceStatus:
        """The configuration and the counters, as `wg show` prints them; its repr hides the private keys."""
        return self._configured.named(self.device.status())


def _silence(peer: PublicKey, endpoint: Endpoint | None, timeout: float) -> str:
    if endpoint is None:
        return f"{peer.short()} has not called for {timeout:g} s: it has no Endpoint, so it must begin"
    hint = "check the Endpoint, both public keys, and that UDP passes"
    return f"{peer.short()} at {endpoint} has not answered for {timeout:g} s: {hint}"
