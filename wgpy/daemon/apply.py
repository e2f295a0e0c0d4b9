"""Making a running interface what its edited file says, without dropping a session."""

from __future__ import annotations

import asyncio

from wgpy.config import wg, wgquick
from wgpy.config.values import InterfaceConfig
from wgpy.daemon.quick import Quick, routes
from wgpy.device.status import DeviceStatus
from wgpy.errors import WgpyError
from wgpy.tunnel import Tunnel


class Apply:
    """Takes the texts of files, one after the other. `steps` is where `quick` and this note each step taken."""

    def __init__(self, tunnel: Tunnel, quick: Quick, steps: list[str]) -> None:
        self._tunnel = tunnel
        self._quick = quick
        self._steps = steps
        self._lock = asyncio.Lock()

    async def __call__(self, text: str) -> tuple[list[str], str]:
        """Returns the steps taken and, if one failed, why; then all is as it was, and the steps back are among them."""
        async with self._lock:
            self._steps.clear()
            try:
                await self._apply(text)
            except WgpyError as error:
                return self._steps[:], str(error)
            return self._steps[:], ""

    async def _apply(self, text: str) -> None:
        config = wgquick.parse(text).config
        routes(config, ())  # refuses a table that is not there before anything is done
        before, status = self._quick.config, self._tunnel.status()
        await self._tunnel.reconfigure(config)  # all of it or nothing
        if self._tunnel.status().without_counters() != status.without_counters():
            self._steps.append(f"wg syncconf {self._tunnel.name}")
        try:
            await asyncio.to_thread(self._quick.apply, config, self._tunnel.endpoints(), status)
        except WgpyError as error:
            self._steps.append(f"{error}; going back")
            await self._go_back(before, status)
            raise

    async def _go_back(self, config: InterfaceConfig, status: DeviceStatus) -> None:
        """Take back what was done; what cannot be is said. Peers that had gone come back without their sessions."""
        try:
            try:
                await asyncio.to_thread(self._quick.go_back, config, self._tunnel.status())
            finally:
                await self._tunnel.reconfigure(config)
                self._tunnel.configure(wg.restoring(status, self._tunnel.status()))
        except WgpyError as error:
            self._steps.append(f"{error}; going on")
