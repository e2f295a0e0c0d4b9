"""`wgpy save` and SaveConfig: what an interface has become goes into its file, as wg-quick(8) saves it.

Unlike wg-quick's, the file keeps its comments, the peers' names, the host names of endpoints, and its own order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from wgpy.config import wgquick
from wgpy.config.edit import rewritten
from wgpy.config.values import EndpointName, InterfaceConfig, PeerConfig
from wgpy.daemon import uapi_client
from wgpy.daemon.files import read_text, replace_text
from wgpy.device.status import DeviceStatus, PeerStatus
from wgpy.net.netlink import Netlink

_Item = TypeVar("_Item")


def save(name: str, path: Path) -> None:
    """Make the file say what the running interface `name` is: keys, peers, port, mark, addresses and MTU.

    Raises ConfigError, ControlError and NetworkError; the file is then as it was.
    """
    file = wgquick.parse(read_text(path), str(path))
    status = uapi_client.read(name)
    config = with_status(file.config, status)
    with Netlink() as netlink:
        addresses = netlink.addresses(name, file.config.addresses)
        config = replace(config, addresses=_in_order(file.config.addresses, addresses))
        if config.mtu:
            config = replace(config, mtu=netlink.link_mtu(name))
        if config.table == "auto" and not file.config.fwmark and netlink.has_default_route(name, status.fwmark):
            config = replace(config, fwmark=0)  # chosen by `up`, which will choose again
    text = str(rewritten(file, config))
    if text != str(file):
        replace_text(path, text)


def with_status(config: InterfaceConfig, status: DeviceStatus) -> InterfaceConfig:
    """The configuration, brought in line with what a device is. What no device knows stays: names, DNS, hooks."""
    before = {peer.public_key: peer for peer in config.peers}
    return replace(
        config,
        private_key=status.private_key,
        listen_port=status.listen_port,
        fwmark=status.fwmark,
        peers=tuple(_peer(before.get(peer.public_key), peer) for peer in status.peers),
    )


def _peer(before: PeerConfig | None, now: PeerStatus) -> PeerConfig:
    before = before or PeerConfig(public_key=now.public_key)
    return replace(
        before,
        preshared_key=now.preshared_key,
        endpoint=_endpoint(before.endpoint, now),
        persistent_keepalive=now.persistent_keepalive,
        allowed_ips=_in_order(before.allowed_ips, now.allowed_ips),
    )


def _endpoint(before: EndpointName | None, now: PeerStatus) -> EndpointName | None:
    """A host name stays, wherever it led; an address is the one the peer was last heard from."""
    if now.endpoint is None:
        return before
    if before and (before.is_host_name or (before.host.partition("%")[0], before.port) == now.endpoint[:2]):
        return before
    scope = f"%{now.endpoint.scope_id}" if now.endpoint.scope_id else ""
    return EndpointName(host=now.endpoint.host + scope, port=now.endpoint.port)


def _in_order(before: Iterable[_Item], now: Iterable[_Item]) -> tuple[_Item, ...]:
    """What there is now, in the order it had."""
    rest = dict.fromkeys(now)
    return (*(item for item in before if item in rest), *(item for item in rest if item not in set(before)))
