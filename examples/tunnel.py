"""A tunnel inside your own asyncio program: bring it up, watch it, close it.

Needs root (or CAP_NET_ADMIN) for the TUN. The program itself sets addresses and routes, here with `ip`.
Run it with: python examples/tunnel.py wg0.conf [SECONDS]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import wgpy
from wgpy import Event, InterfaceConfig, LinuxTun, Tunnel, WgpyError


async def main(name: str, config: InterfaceConfig, seconds: float) -> None:
    def tell(event: Event) -> None:
        print(f"{event.kind}: {event.public_key} at {event.endpoint}", flush=True)

    async with Tunnel(config, tun=LinuxTun.open(name), on_event=tell) as tunnel:
        await asyncio.to_thread(give_addresses, tunnel, config)
        print(f"{tunnel.name} is up on UDP port {tunnel.listen_port}", flush=True)
        await asyncio.sleep(seconds)
        for status in tunnel.status().peers:
            print(f"{status.public_key}: {status.rx_bytes} bytes received, {status.tx_bytes} sent")


def give_addresses(tunnel: Tunnel, config: InterfaceConfig) -> None:
    for address in config.addresses:
        ip("address", "add", str(address), "dev", tunnel.name)
    ip("link", "set", tunnel.name, "mtu", str(tunnel.mtu), "up")
    for peer in config.peers:
        for network in peer.allowed_ips:
            ip("route", "replace", str(network), "dev", tunnel.name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(f"usage: {sys.argv[0]} wg0.conf [SECONDS]")
    path = Path(sys.argv[1])
    seconds = float(sys.argv[2]) if sys.argv[2:] else 60.0
    try:
        asyncio.run(main(path.stem, wgpy.config.read(path).config, seconds))
    except KeyboardInterrupt:
        print("closed")
    except WgpyError as error:
        raise SystemExit(f"{sys.argv[0]}: {error}") from error
