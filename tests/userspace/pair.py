"""Two tunnels with our own stack, in one process: over a network in memory and in virtual time, or over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_interface, ip_network

import wgpy
from wgpy import virtual
from wgpy.config.values import EndpointName, InterfaceConfig, PeerConfig
from wgpy.keys import PrivateKey

PORT = 8080
HERE, THERE = ("10.0.0.1", "fd00::1"), ("10.0.0.2", "fd00::2")


def configs(hosts: tuple[str, str] = ("192.0.2.1", "192.0.2.2")) -> tuple[InterfaceConfig, InterfaceConfig]:
    """Of the two sides: each listens at 51820 of its host."""
    keys = [PrivateKey.generate() for _ in range(2)]
    made = []
    for i, own in enumerate((HERE, THERE)):
        peer = PeerConfig(
            public_key=keys[1 - i].public_key,
            endpoint=EndpointName(host=hosts[1 - i], port=51820),
            allowed_ips=tuple(ip_network(address) for address in (THERE, HERE)[i]),
        )
        addresses = tuple(ip_interface(f"{address}/{64 if ':' in address else 24}") for address in own)
        made.append(
            InterfaceConfig(private_key=keys[i], listen_port=51820, addresses=addresses, peers=(peer,), mtu=1420)
        )
    return made[0], made[1]


@asynccontextmanager
async def two(
    network: wgpy.MemoryNetwork | None = None, change: Callable[[InterfaceConfig], InterfaceConfig] = lambda one: one
) -> AsyncIterator[tuple[wgpy.Stack, wgpy.Stack]]:
    """Two tunnels, in a loop with virtual time. `change` is what to make of their configurations."""
    network = network or wgpy.MemoryNetwork(delay=0.01)
    clock = asyncio.get_running_loop().time
    one, other = (
        wgpy.Stack(change(config), udp=network.host(f"192.0.2.{i + 1}"), clock=clock)
        for i, config in enumerate(configs())
    )
    async with one, other:
        yield one, other


def in_virtual_time(main: Callable[[], Awaitable[None]]) -> None:
    """Run it; nothing may be left behind."""

    async def bounded() -> None:
        async with asyncio.timeout(3600):
            await main()
        await asyncio.sleep(0.1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual.run(bounded())
