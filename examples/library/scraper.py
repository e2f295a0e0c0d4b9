"""The same page through several tunnels at once: python scraper.py URL wg0.conf wg1.conf ... (needs httpx; no root)."""

from __future__ import annotations

import asyncio
import sys
import time

import httpx

import wgpy
from wgpy.adapters.httpx import TunnelTransport


async def fetch(config: str, url: str) -> str:
    """Fetch the page through one tunnel; returns a line to print. Tunnels may have the same addresses and routes."""
    begun = time.monotonic()
    try:
        async with (
            wgpy.connect(config) as tunnel,
            httpx.AsyncClient(transport=TunnelTransport(tunnel)) as client,
        ):
            answer = await client.get(url)
    except (wgpy.WgpyError, httpx.HTTPError) as error:
        return f"{config}: {error or type(error).__name__}"
    return f"{config}: {answer.status_code}, {len(answer.content)} bytes in {time.monotonic() - begun:.2f} s"


async def main(url: str, *configs: str) -> None:
    for finished in asyncio.as_completed([fetch(config, url) for config in configs]):
        print(await finished)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
