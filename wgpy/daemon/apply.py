"""Making a running interface what its edited file says, without dropping a session."""

from __future__ import annotations

import asyncio

from wgpy.config import wg, wgquick
from wgpy.config.values import InterfaceConfig
from wgpy.daemon.interface import Interface
from wgpy.daemon.quick import Quick, routes
from wgpy.device.status import DeviceStatus
from wgpy.errors import WgpyError


class Apply:
    """Applies the text of a configuration file, one at a time. Each step taken is appended to `steps`."""

    def __init__(self, interface: Interface, quick: Quick, steps: list[str]) -> None:
        self._interface = interface
        self._quick = quick
        self._steps = steps
        self._lock = asyncio.Lock()

    async def __call__(self, text: str) -> tuple[list[str], str]:
        """Return the steps taken and the error, if one failed; then the steps that undid the others are included."""
        async with self._lock:
            self._steps.clear()
            try:
                await self._apply(text)
            except WgpyError as error:
                return self._steps[:], str(error)
            return self._steps[:], ""

    async def _apply(self, text: str) -> None:
        config = await asyncio.to_thread(_read, text)  # a third of a second for thousands of peers
        before, status = self._quick.config, await self._interface.status()
        await self._interface.reconfigure(config)  # all or nothing
        changed = await self._interface.status()
        if changed.without_counters() != status.without_counters():
            self._steps.append(f"wg syncconf {self._interface.name}")
        if config.workers != before.workers:
            self._steps.append("# Workers takes effect when the interface is brought up again")
        try:
            await asyncio.to_thread(self._quick.apply, config, changed.endpoints(), status)
        except WgpyError as error:
            self._steps.append(f"{error}; undoing")
            await self._go_back(before, status)
            raise

    async def _go_back(self, config: InterfaceConfig, status: DeviceStatus) -> None:
        """Undo what was done, and report what cannot be undone. Peers that were removed come back without sessions."""
        try:
            try:
                await asyncio.to_thread(self._quick.go_back, config, await self._interface.status())
            finally:
                await self._interface.reconfigure(config)
                await self._interface.configure(wg.restoring(status, await self._interface.status()))
        except WgpyError as error:
            self._steps.append(f"{error}; continuing")


def _read(text: str) -> InterfaceConfig:
    """Read a file and check it completely. Raises WgpyError before anything is changed."""
    config = wgquick.parse(text).config
    routes(config, ())  # raises for an unknown table
    return config
