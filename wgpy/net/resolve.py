"""Endpoint names to addresses, as `wg` resolves them: the first answer, and patience while DNS is not there yet."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from functools import partial
from typing import Final

from wgpy.config.values import EndpointName, InterfaceConfig
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.endpoint import Endpoint
from wgpy.errors import NetworkError
from wgpy.keys import PresharedKey, PrivateKey

log = logging.getLogger("wgpy")

FIRST_DELAY: Final = 1.0  # seconds; each further wait is a fifth longer, 20 s at the most (wireguard-tools config.c)
LONGEST_DELAY: Final = 20.0
_TRANSIENT: Final = frozenset({socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY})


async def resolved_change(config: InterfaceConfig) -> DeviceChange:
    """The change that makes a device what `config` says, host names resolved. Raises NetworkError naming the host."""
    names = [peer.endpoint for peer in config.peers]
    resolved = dict(zip(filter(None, names), await asyncio.gather(*map(resolve, filter(None, names))), strict=True))
    return DeviceChange(
        private_key=config.private_key or PrivateKey(bytes(32)),
        listen_port=config.listen_port,
        fwmark=config.fwmark,
        replace_peers=True,
        peers=tuple(
            PeerChange(
                public_key=peer.public_key,
                preshared_key=peer.preshared_key or PresharedKey(bytes(32)),
                endpoint=resolved[peer.endpoint] if peer.endpoint else None,
                persistent_keepalive=peer.persistent_keepalive,
                replace_allowed_ips=True,
                allowed_ips=tuple(AllowedIPChange(network) for network in peer.allowed_ips),
            )
            for peer in config.peers
        ),
    )


async def resolve(name: EndpointName) -> Endpoint:
    """The endpoint's address. Raises NetworkError naming the host.

    A resolver that does not answer is asked again, WG_ENDPOINT_RESOLUTION_RETRIES times (15; "infinity" for ever).
    """
    setting = os.environ.get("WG_ENDPOINT_RESOLUTION_RETRIES", "15")
    retries = float("inf") if setting == "infinity" else int(setting) if setting.isdigit() else 15
    delay = FIRST_DELAY
    while True:
        try:
            return (await look_up(name))[0]
        except socket.gaierror as error:
            if error.errno not in _TRANSIENT or retries <= 0:
                raise NetworkError(f"endpoint {name}: {error.strerror}; check the name and the resolver") from error
            log.warning("endpoint %s: %s; trying again in %.2f seconds", name, error.strerror, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 1.2, LONGEST_DELAY)
            retries -= 1


async def look_up(name: EndpointName) -> list[Endpoint]:
    """Every address of the name, in the resolver's order. Raises socket.gaierror."""
    # Not the loop's getaddrinfo: uvloop's loses the scope of a link-local address.
    ask = partial(socket.getaddrinfo, name.host, name.port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP)
    answers = await asyncio.to_thread(ask) if name.is_host_name else ask()
    endpoints = [
        Endpoint(str(address[0]).partition("%")[0], name.port, int(address[3]) if len(address) == 4 else 0)
        for *_, address in answers
    ]
    return list(dict.fromkeys(endpoints))
