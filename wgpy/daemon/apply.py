"""Making a running interface what its edited file says, without dropping a session."""

from __future__ import annotations

import asyncio

from wgpy.config import wgquick
from wgpy.daemon.quick import Quick
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
        """Returns the steps taken and, if one failed, why; those before it stay."""
        async with self._lock:
            self._steps.clear()
            try:
                await self._apply(text)
            except WgpyError as error:
                return self._steps[:], str(error)
            return self._steps[:], ""

    async def _apply(self, text: str) -> None:
        config = wgquick.parse(text).config
        before, offloads = self._tunnel.status(), self._tunnel.config.offloads
        await self._tunnel.reconfigure(config)
        if self._tunnel.status().without_counters() != before.without_counters():
            self._steps.append(f"wg syncconf {self._tunnel.name}")
        await asyncio.to_thread(self._quick.apply, config, self._tunnel.endpoints(), before)
        if config.offloads != offloads:
            self._steps.append("UdpGso and TunOffload will be as the file says after the next `up`")
