"""A worker: the process that carries the packets of some of an interface's peers, as control tells it.

It has a whole Device, the sockets of its own in the port's group, and a queue of its own of the TUN. Control gives it
all three, keeps copies, and gives them to the next process should this one die. It ends when its channel is closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from wgpy.config.uapi import format_status
from wgpy.config.values import ALL_OFFLOADS, InterfaceConfig, Offloads
from wgpy.datapath import Udp
from wgpy.device.effects import Effects, Event
from wgpy.device.share import Share
from wgpy.endpoint import Endpoint
from wgpy.errors import SocketError, TunError, WgpyError
from wgpy.keys import PublicKey
from wgpy.net.udp import UdpSockets
from wgpy.system.loop import run_loop
from wgpy.system.priority import raise_priority
from wgpy.system.syscalls import die_with_parent, name_process
from wgpy.tun.linux import LinuxTun
from wgpy.tunnel import Tunnel
from wgpy.workers.channel import Channel, Kind, Message
from wgpy.workers.handover import HandoverMesh
from wgpy.workers.messages import (
    pack_event,
    pack_hosts,
    pack_unanswered,
    unpack_change,
    unpack_initiations,
    unpack_sessions,
)

log: Final = logging.getLogger("wgpy")


class WorkerTunnel(Tunnel):
    """A tunnel that is configured step by step before it carries packets.

    Until then it reads nothing: a packet for a peer that it does not know yet would be answered as unreachable.
    """

    on_silence: Callable[[PublicKey, Endpoint | None], None]
    """Called with a peer and its endpoint after each initiation without an answer."""

    def begin(self) -> None:
        """Be ready to be configured, in the running loop. Control follows the link."""
        self._begin()
        self._path.follows_link = True

    def carry(self) -> None:
        """Read the TUN and what others hand over; again is harmless."""
        self._path.start()

    def routes_changed(self, mtu: int, route_mtus: Iterable[int]) -> None:
        """Links, addresses or routes have changed: the interface's MTU in bytes, and those of routes into it."""
        self._routes_changed()
        if isinstance(self._tun, LinuxTun):
            self._tun.route_mtus = frozenset(route_mtus)
        self.mtu = mtu

    def _report(self, effects: Effects) -> None:
        for public_key, endpoint in effects.unanswered:
            self.on_silence(public_key, endpoint)
        super()._report(effects)

    def hosts_forgotten(self) -> None:
        """The port's filter has forgotten where peers are."""
        if isinstance(self._path.udp, UdpSockets):
            self._path.udp.forget_hosts()


class _GivenPort:
    """The UDP port as control opens it: `given` are the sockets that it gave last."""

    def __init__(self, report_hosts: Callable[[list[bytes]], None]) -> None:
        self.given: list[socket.socket] = []
        self._report_hosts = report_hosts

    def open(self, port: int = 0, *, fwmark: int = 0, offloads: Offloads = ALL_OFFLOADS) -> Udp:
        if not self.given:
            raise SocketError("control gave no sockets")
        sockets, self.given = self.given, []
        return UdpSockets(sockets, offloads=offloads, report_hosts=self._report_hosts)


class Worker:
    """The process's part in the conversation."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._port = _GivenPort(lambda hosts: channel.tell(Kind.HOSTS, pack_hosts(hosts)))
        self._tunnel: WorkerTunnel

    async def serve(self) -> None:
        """Do what control says until it closes the channel, or the interface goes away."""
        message = await self._channel.receive()
        if message is None or message.kind is not Kind.BEGIN:
            return
        self._begin(message)
        raising = asyncio.ensure_future(raise_priority())
        listening = asyncio.ensure_future(self._listen())
        closed = asyncio.ensure_future(self._tunnel.wait_closed())
        await asyncio.wait((listening, closed), return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            listening.result()
        self._tunnel.close()
        listening.cancel()
        raising.cancel()
        with suppress(TunError):  # control notices it as well
            await closed

    def _begin(self, message: Message) -> None:
        begin = message.json()
        tun_fd, *links = message.fds
        log.setLevel(begin["level"])
        logging.getLogger().addHandler(_ToControl(self._channel))
        share = Share(begin["number"], begin["count"])
        others = [number for number in range(share.count) if number != share.number]
        offloads = Offloads(**begin["offloads"])
        self._tunnel = WorkerTunnel(
            InterfaceConfig(),
            tun=LinuxTun.adopt(tun_fd, offload=offloads.tun),
            udp=self._port,
            on_event=self._happened,
            keylog=self._log_keys if begin["keylog"] else None,
            offloads=offloads,
            share=share,
            mesh=HandoverMesh(share.number, dict(zip(others, map(_socket, links), strict=True))),
        )
        self._tunnel.on_silence = self._unanswered
        self._tunnel.device.timestamp_floor = begin["floor"]
        self._tunnel.begin()
        self._channel.send(Kind.DONE)

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            self._handle(message)
            await asyncio.sleep(0)  # packets and timers have their turn between two changes

    def _handle(self, message: Message) -> None:
        tunnel = self._tunnel
        match message.kind:
            case Kind.RESUME:
                tunnel.device.resume(*unpack_sessions(message.json()))
            case Kind.CONFIGURE:
                self._port.given = [_socket(fd) for fd in message.fds]
                try:
                    tunnel.configure(unpack_change(message.json()))
                except WgpyError as error:
                    self._channel.send(Kind.FAILED, str(error))
                else:
                    self._channel.send(Kind.DONE)
            case Kind.INITIATIONS:
                for public_key, timestamp in unpack_initiations(message.json()).items():
                    tunnel.device.refuse_initiations(public_key, timestamp)
            case Kind.UP:
                self._port.given = [_socket(fd) for fd in message.fds]
                tunnel.up()
                tunnel.carry()
            case Kind.DOWN:
                tunnel.down()
                tunnel.carry()
                self._channel.send(Kind.DONE)
            case Kind.ROUTES:
                tunnel.routes_changed(**message.json())
            case Kind.HOSTS_FORGOTTEN:
                tunnel.hosts_forgotten()
            case Kind.PING:
                self._channel.send(Kind.DONE)
            case Kind.STATUS:
                if self._channel.dropped:
                    log.warning("(%s) %d messages to control were dropped", tunnel.name, self._channel.dropped)
                    self._channel.dropped = 0
                self._channel.send(Kind.DONE, format_status(tunnel.status()))

    def _happened(self, event: Event) -> None:
        device = self._tunnel.device
        packed = pack_event(event, device.timestamp_floor, device.last_initiation(event.public_key))
        self._channel.tell(Kind.EVENT, packed)

    def _unanswered(self, public_key: PublicKey, endpoint: Endpoint | None) -> None:
        floor = self._tunnel.device.timestamp_floor
        self._channel.tell(Kind.UNANSWERED, pack_unanswered(public_key, endpoint, floor))

    def _log_keys(self, label: str, key: bytes) -> None:
        self._channel.tell(Kind.KEYS, {"label": label, "key": key.hex()})


class _ToControl(logging.Handler):
    """Sends each record to control, which has the log."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.tell(Kind.LOG, {"level": record.levelno, "name": record.name, "text": self.format(record)})


def _socket(fd: int) -> socket.socket:
    return socket.socket(fileno=fd)


def main(fd: int) -> None:
    """Run a worker; `fd` is its end of the channel."""
    die_with_parent(signal.SIGKILL)  # a worker that hangs, or was stopped, reads no end of file
    name_process("wgpy-worker")

    async def serve() -> int:
        await Worker(Channel(socket.socket(fileno=fd), takes_fds=True)).serve()
        return 0

    os._exit(run_loop(serve))
