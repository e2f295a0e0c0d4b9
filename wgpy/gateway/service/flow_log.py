"""Writes the flow log, while the endpoint's setting says so: what conntrack forgets, and what the rules deny.

A record of a connection is written when it is over, which for one that nobody closes is when conntrack forgets it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from wgpy.errors import NetworkError
from wgpy.gateway.enforcement.notices import Connections
from wgpy.gateway.policy import flow_log
from wgpy.gateway.service.gateway import Gateway

log: Final = logging.getLogger("wgpy.gateway")

CHECKED: Final = 60.0  # seconds between records of what was lost
MOST: Final = 1000  # connections and denied packets in a second that are written: nobody fills the disk at will


class FlowLog:
    """The flow log of a gateway. `wall` is in seconds since 1970; `write` takes a record."""

    def __init__(self, gateway: Gateway, wall: Callable[[], float], write: Callable[[dict[str, Any]], None]) -> None:
        self._gateway, self._wall, self._write = gateway, wall, write
        self._connections: Connections | None = None
        self._is_refused = False  # the kernel cannot
        self._second, self._taken, self._refused = 0, 0, 0  # how many in that second, and too many since the beginning
        self.lost: int = 0  # records since the beginning: those that the log has told
        self._lost: int | None = None  # at the last check; None before the first
        self._checked_at = wall()

    def follow(self) -> None:
        """Begin or end, as the setting says by now. Called in a running event loop."""
        wanted = self._gateway.endpoint.flow_log
        if wanted and self._connections is None and not self._is_refused:
            try:
                self._connections = Connections()
            except NetworkError as error:
                log.error("flow log: %s", error)
                self._is_refused = True
                return
            asyncio.get_running_loop().add_reader(self._connections, self._read)
            self._lost, self._checked_at = None, self._wall()
        elif not wanted:
            self._is_refused = False
            self.close()

    def close(self) -> None:
        """End."""
        if self._connections is not None:
            asyncio.get_running_loop().remove_reader(self._connections)
            self._connections.close()
            self._connections = None

    @property
    def is_due(self) -> bool:
        """Whether `tell_lost` is to be called."""
        return self._connections is not None and abs(self._wall() - self._checked_at) >= CHECKED

    def tell_lost(self, elsewhere: int) -> None:
        """Write how much was lost since the last time: by us, and `elsewhere` since the gateway's table was made."""
        now = self._wall()
        lost = elsewhere + self._refused + (self._connections.lost if self._connections else 0)
        more = 0 if self._lost is None else lost - self._lost if lost >= self._lost else lost
        if more:
            self.lost += more
            self._write(flow_log.skipped(self._gateway.interface, self._checked_at, now, more))
        self._lost, self._checked_at = lost, now

    def deny(self, packets: Iterable[bytes]) -> None:
        """Write records of denied packets, of which the beginning is given."""
        if self._connections is None:
            return
        for packet in packets:
            if (read := flow_log.read_packet(packet)) and (whose := self._whose(read[0])) and self._has_room():
                self._write(flow_log.denied(*read, self._wall(), *whose[:3], is_clients=whose[3]))

    def take(self, bodies: Iterable[bytes]) -> None:
        """Write records of connections that are over, of which the kernel's messages are given."""
        for body in bodies:
            flow = flow_log.read_flow(body, self._wall())
            if flow and (whose := self._whose(flow.path)) and self._has_room():
                for record in flow_log.accepted(flow, *whose[:3], is_clients=whose[3]):
                    self._write(record)

    def _read(self) -> None:
        if self._connections is not None:
            self.take(self._connections.read())

    def _has_room(self) -> bool:
        if self._second != (second := int(self._wall())):
            self._second, self._taken = second, 0
        self._taken += 1
        self._refused += self._taken > MOST
        return self._taken <= MOST

    def _whose(self, path: flow_log.Path) -> tuple[str, str, str, bool] | None:
        """The interface, the device and its user, and whether it sent the first packet; None for others' paths."""
        for address, is_source in ((path.source, True), (path.destination, False)):
            if device := self._gateway.owner(address):
                return self._gateway.interface, device.name, device.user, is_source
        return None
