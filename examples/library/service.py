"""A web service for the other side of the tunnel only: python service.py wg0.conf 8080 (needs aiohttp; no root)."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

import wgpy


async def hello(request: web.Request) -> web.Response:
    return web.json_response({"caller": request.remote, "path": request.path})


async def main(config: str, port: str) -> None:
    application = web.Application()
    application.router.add_get("/{path:.*}", hello)
    async with wgpy.connect(config) as tunnel:
        runner = web.AppRunner(application)
        await runner.setup()
        assert runner.server is not None
        for address in tunnel.config.addresses:
            await tunnel.create_server(runner.server, str(address.ip), int(port))  # in the tunnel, not on the host
        for peer in tunnel.config.peers:
            await tunnel.wait_for_handshake(peer.public_key)  # so that the other side knows our address
        own = (f"[{address.ip}]" if address.version == 6 else str(address.ip) for address in tunnel.config.addresses)
        print(f"serving on {' and '.join(f'http://{host}:{port}' for host in own)}", flush=True)
        try:
            await tunnel.wait_closed()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except wgpy.WgpyError as error:
        sys.exit(f"service: {error}")
    except KeyboardInterrupt:
        pass
