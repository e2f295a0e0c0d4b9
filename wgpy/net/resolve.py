"""Resolving endpoint names as `wg` does: the first answer counts, and it waits while DNS is not available yet."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from wgpy.config.values import EndpointName, InterfaceConfig
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.endpoint import Endpoint
from wgpy.errors import NetworkError
from wgpy.keys import PresharedKey, PrivateKey

log: Final = logging.getLogger("wgpy")

_Item = TypeVar("_Item")
FIRST_DELAY: Final = 1.0  # seconds; each further one is a fifth longer, up to 20 s (wireguard-tools config.c)
LONGEST_DELAY: Final = 20.0
SLICE: Final = 16  # peers: each takes up to 0.3 ms, if it has a keepalive and so a handshake
MAX_LOOKUPS: Final = 16  # threads at once
_lookups: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]] = WeakKeyDictionary()
_TRANSIENT: Final = frozenset({socket.EAI_AGAIN, socket.EAI_MEMORY, getattr(socket, "EAI_SYSTEM", socket.EAI_AGAIN)})


async def resolved_change(config: InterfaceConfig) -> DeviceChange:
    """The change that configures a device as in `config`, with names resolved. Raises NetworkError naming the host."""
    names = {peer.endpoint for peer in config.peers if peer.endpoint and peer.endpoint.is_host_name}
    resolved = dict(zip(names, await asyncio.gather(*map(resolve, names)), strict=True))
    peers: list[PeerChange] = []
    async for some in in_slices(config.peers):
        for peer in some:
            endpoint = resolved.get(peer.endpoint) or await resolve(peer.endpoint) if peer.endpoint else None
            peers.append(
                PeerChange(
                    public_key=peer.public_key,
                    preshared_key=peer.preshared_key or PresharedKey(bytes(32)),
                    endpoint=endpoint,
                    persistent_keepalive=peer.persistent_keepalive,
                    replace_allowed_ips=True,
                    allowed_ips=tuple(AllowedIPChange(network) for network in peer.allowed_ips),
                )
            )
    return DeviceChange(
        private_key=config.private_key or PrivateKey(bytes(32)),
        listen_port=config.listen_port,
        fwmark=config.fwmark,
        replace_peers=True,
        peers=tuple(peers),
    )


async def in_slices(items: tuple[_Item, ...]) -> AsyncIterator[tuple[_Item, ...]]:
    """A few items at a time, with a turn of the event loop between, so that thousands keep nothing else waiting."""
    for start in range(0, len(items), SLICE):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + SLICE]


async def resolve(name: EndpointName) -> Endpoint:
    """The endpoint's address. Raises NetworkError naming the host.

    A resolver that does not answer is asked again as often as WG_ENDPOINT_RESOLUTION_RETRIES says: 15 times if it is
    not set, without end if it is "infinity".
    """
    setting = os.environ.get("WG_ENDPOINT_RESOLUTION_RETRIES", "15")
    retries = float("inf") if setting == "infinity" else int(setting) if setting.isdigit() else 15
    delay = FIRST_DELAY
    while True:
        try:
            return (await look_up(name))[0]
        except socket.gaierror as error:
            if error.errno not in _TRANSIENT or retries <= 0:
                raise NetworkError(
                    f"endpoint {name}: {error.strerror}; check the name and this machine's DNS"
                ) from error
            log.warning("endpoint %s: %s; trying again in %.2f seconds", name, error.strerror, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 1.2, LONGEST_DELAY)
            retries -= 1


async def look_up(name: EndpointName) -> list[Endpoint]:
    """All addresses of the name, in the resolver's order. Raises socket.gaierror."""
    # Not the loop's getaddrinfo: uvloop's loses the scope of a link-local address.
    ask = partial(socket.getaddrinfo, name.host, name.port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP)
    answers = await _in_daemon_thread(ask) if name.is_host_name else ask()
    endpoints = [
        Endpoint(str(address[0]).partition("%")[0], name.port, int(address[3]) if len(address) == 4 else 0)
        for *_, address in answers
    ]
    return list(dict.fromkeys(endpoints))


async def _in_daemon_thread(call: Callable[[], _Item]) -> _Item:
    """As asyncio.to_thread, but neither the loop nor Python waits for the thread at its end.

    A lookup cannot be cancelled, and takes minutes where the name server is silent.
    """
    done: Future[_Item] = Future()

    def run() -> None:
        if done.set_running_or_notify_cancel():
            try:
                done.set_result(call())
            except Exception as error:
                done.set_exception(error)

    async with _lookups.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_LOOKUPS)):
        Thread(target=run, daemon=True).start()
        return await asyncio.wrap_future(done)
