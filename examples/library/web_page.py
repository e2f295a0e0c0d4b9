"""A page behind a tunnel: python web_page.py wg0.conf https://intranet.example/ (needs httpx; no root)."""

from __future__ import annotations

import asyncio
import sys

import httpx

import wgpy
from wgpy.adapters.httpx import TunnelTransport


async def main(config: str, url: str) -> None:
    async with (
        wgpy.connect(config) as tunnel,
        httpx.AsyncClient(transport=TunnelTransport(tunnel)) as client,
    ):
        answer = await client.get(url)
        answer.raise_for_status()
        print(answer.text)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (wgpy.WgpyError, httpx.HTTPError) as error:
        sys.exit(f"web_page: {error}")
