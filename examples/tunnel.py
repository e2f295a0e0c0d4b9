"""A tunnel inside your own asyncio program: bring it up, watch it, close it.

Needs root (or CAP_NET_ADMIN) for the TUN. Addresses and routes are the caller's, here by `ip`.
Run it with: python examples/tunnel.py wg0.conf [SECONDS]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from wgpy import Event, LinuxTun, Tunnel, parse_config


async def main(path: str, seconds: float) -> None:
    config = parse_config(Path(path).read_text(), path).config

    def tell(event: Event) -> None:
        print(f"{event.kind}: {event.public_key} at {event.endpoint}", flush=True)

    async with Tunnel(config, tun=LinuxTun.open("wg%d"), on_event=tell) as tunnel:
        for address in config.addresses:
            subprocess.run(["ip", "address", "add", str(address), "dev", tunnel.name], check=True)
        subprocess.run(["ip", "link", "set", tunnel.name, "mtu", str(tunnel.mtu), "up"], check=True)
        for peer in config.peers:
            for network in peer.allowed_ips:
                subprocess.run(["ip", "route", "replace", str(network), "dev", tunnel.name], check=True)
        print(f"{tunnel.name} is up on UDP port {tunnel.listen_port}", flush=True)
        await asyncio.sleep(seconds)
        for status in tunnel.status().peers:
            print(f"{status.public_key}: {status.rx_bytes} bytes received, {status.tx_bytes} sent")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60.0))
