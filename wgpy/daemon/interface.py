"""What the daemon serves: an interface, whichever way its packets are carried.

The daemon's parts (userspace API, apply, metrics, the files in /run and /var/lib) talk to an `Interface` and not to a
Tunnel, so that it does not matter to them in which process the peers' sessions are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from wgpy.config.values import InterfaceConfig
from wgpy.device.changes import DeviceChange
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey
from wgpy.system.priority import raise_priority
from wgpy.tunnel import Tunnel

Sessions = tuple[PublicKey, Mapping[PublicKey, tuple[Endpoint, float]]]
"""Our public key in some sessions, and for each peer its endpoint and when its session began (`Device.resume`)."""


class Interface(Protocol):
    """A running interface, with the errors of the methods of the same names of `Tunnel`."""

    sessions: Callable[[], Sessions | None]
    """Asked, before peers are configured, for the sessions of the process that served them before."""
    timestamp_floor: int
    """As `Device.timestamp_floor`."""

    @property
    def name(self) -> str: ...
    @property
    def public_key(self) -> PublicKey | None: ...
    def knows(self, public_key: PublicKey) -> bool: ...
    def name_of(self, public_key: PublicKey) -> str: ...
    async def start(self, *, up: bool) -> None: ...
    def follow_link(self) -> None: ...
    async def status(self) -> DeviceStatus: ...
    async def configure(self, change: DeviceChange) -> None: ...
    async def reconfigure(self, config: InterfaceConfig) -> None: ...
    async def close(self) -> None: ...
    async def wait_closed(self) -> None: ...
    def check(self) -> None:
        """Called as often as the service manager's watchdog wants to know that this process lives."""


class LocalInterface:
    """A tunnel in this process."""

    sessions: Callable[[], Sessions | None]
    """As `Interface.sessions`."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self.sessions = lambda: None
        self._raising: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        return self._tunnel.name

    @property
    def public_key(self) -> PublicKey | None:
        return self._tunnel.device.public_key

    @property
    def timestamp_floor(self) -> int:
        """As `Device.timestamp_floor`."""
        return self._tunnel.device.timestamp_floor

    @timestamp_floor.setter
    def timestamp_floor(self, nanoseconds: int) -> None:
        self._tunnel.device.timestamp_floor = nanoseconds

    def knows(self, public_key: PublicKey) -> bool:
        return self._tunnel.device.knows(public_key)

    def name_of(self, public_key: PublicKey) -> str:
        return self._tunnel.name_of(public_key)

    async def start(self, *, up: bool) -> None:
        if sessions := self.sessions():
            self._tunnel.device.resume(*sessions)
        self._raising = asyncio.ensure_future(raise_priority())
        await self._tunnel.start(up=up)

    def follow_link(self) -> None:
        self._tunnel.follow_link()

    async def status(self) -> DeviceStatus:
        return self._tunnel.status()

    async def configure(self, change: DeviceChange) -> None:
        self._tunnel.configure(change)

    async def reconfigure(self, config: InterfaceConfig) -> None:
        await self._tunnel.reconfigure(config)

    async def close(self) -> None:
        if self._raising is not None:
            self._raising.cancel()
        self._tunnel.close()

    async def wait_closed(self) -> None:
        await self._tunnel.wait_closed()

    def check(self) -> None:
        """Nothing to do: there is only this process."""
