"""Addresses of hosts as a tunnel knows them: names are resolved by the configuration's DNS, through the tunnel."""

from __future__ import annotations

import asyncio
import sys
from functools import lru_cache
from importlib import import_module
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, AI_NUMERICHOST, AddressFamily, SocketKind
from socket import getaddrinfo as system_getaddrinfo
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from wgpy.rootless.tunnel import RootlessTunnel

AddressInfo = tuple[AddressFamily, SocketKind, int, str, tuple[Any, ...]]

_NUMERIC: Final = int(AI_NUMERICHOST)  # joining two flags takes as long as looking up an address
_RESOLVER: Final = "wgpy.rootless.resolver"


async def look_up(
    tunnel: RootlessTunnel, host: str | None, port: int | str | None, family: int, type: int, proto: int, flags: int
) -> list[AddressInfo]:
    """As socket.getaddrinfo. Raises ResolveError."""
    hosts = [host] if host is None or _is_numeric(host) else await _resolve(tunnel, host, family)
    found: list[Any] = []
    for numeric in hosts:
        # What depends on nothing but the arguments is looked up once: no services, interfaces, or own addresses.
        is_fixed = isinstance(port, int) and not flags and "%" not in (numeric or "")
        found += (_numeric_once if is_fixed else _numeric)(numeric, port, family, type, proto, flags)
    return found


async def _resolve(tunnel: RootlessTunnel, host: str, family: int) -> list[str]:
    versions = {address.version for address in tunnel.config.addresses}
    own = {known for known, version in ((AF_INET, 4), (AF_INET6, 6)) if version in versions}
    families = own & {family} if family else own
    if host.rstrip(".").lower() == "localhost":  # the tunnel's own (RFC 6761, 6.3)
        return ["::1"] * (AF_INET6 in families) + ["127.0.0.1"] * (AF_INET in families)
    if _RESOLVER not in sys.modules and tunnel.clock_is_real:  # a virtual clock waits for no thread
        await asyncio.to_thread(import_module, _RESOLVER)  # dnspython takes a tenth of a second
    from wgpy.rootless.resolver import resolve

    return await resolve(host, families, tunnel)


def _numeric(
    host: str | None, port: int | str | None, family: int, type: int, proto: int, flags: int
) -> list[AddressInfo]:
    address = host.encode() if host else host  # text would go through the codec for names
    found: list[Any] = system_getaddrinfo(address, port, family, type, proto, flags | _NUMERIC)
    return found


_numeric_once = lru_cache(maxsize=256)(_numeric)


@lru_cache(maxsize=256)
def _is_numeric(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
