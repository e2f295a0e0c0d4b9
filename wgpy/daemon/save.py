"""`wgpy save` and SaveConfig: writing the state of a running interface to its file, as wg-quick(8) does.

Unlike with wg-quick, the file keeps its comments, its order, the peers' names and the host names of endpoints.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from wgpy.config import wgquick
from wgpy.config.edit import rewritten
from wgpy.config.values import EndpointName, InterfaceConfig, PeerConfig
from wgpy.daemon import uapi_client
from wgpy.daemon.files import RUN_DIRECTORY, changing, new_file
from wgpy.device.status import DeviceStatus, PeerStatus
from wgpy.errors import ConfigError, WgpyError
from wgpy.keys import PublicKey
from wgpy.net.netlink import Netlink

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Saved:
    """What `save` changed in the file; `str()` is a line for a person."""

    path: Path
    interface: bool
    """Whether [Interface] changed."""
    added: tuple[PublicKey, ...]
    removed: tuple[PublicKey, ...]
    changed: tuple[PublicKey, ...]

    def __str__(self) -> str:
        counts = {"added": len(self.added), "removed": len(self.removed), "changed": len(self.changed)}
        said = ["[Interface] changed"] * self.interface
        said += [f"{count} peer{'s' * (count > 1)} {what}" for what, count in counts.items() if count]
        return f"{self.path}: saved: {', '.join(said)}" if said else f"{self.path}: nothing to save"


def save(name: str, path: Path, status: Callable[[str], DeviceStatus] = uapi_client.read) -> Saved:
    """Write the keys, peers, port, mark, addresses and MTU of the running interface `name` to its file.

    `status` reads the interface, while the file is locked, so that a client which is being added is not lost. Raises
    ConfigError, ControlError or NetworkError if nothing was saved.
    """
    with changing(path) as held:
        file = wgquick.parse(held.read()[0], str(path))
        config = _now(name, file.config, status(name))
        text = str(rewritten(file, config))
        if text != str(file):
            held.replace(text)
    return _difference(path, file.config, config)


def save_or_keep(name: str, path: Path, config: InterfaceConfig) -> None:
    """Save an interface that is about to be deleted; if its file cannot be written, write a new one and name it.

    `config` is the configuration it was brought up with, because the file may be gone. Raises ConfigError if the file
    could not be written: its message says where the new one is.
    """
    try:
        save(name, path)
    except WgpyError as error:
        content = str(rewritten(wgquick.parse(""), _now(name, config, uapi_client.read(name)))).encode(
            "utf-8", errors="surrogateescape"
        )
        unsaved = f"{path.name}.unsaved-{os.urandom(4).hex()}"
        for kept in (path.resolve().with_name(unsaved), RUN_DIRECTORY / unsaved):
            try:
                with new_file(kept, content):
                    pass
            except OSError:
                continue
            raise ConfigError(f"{error}; saved to {kept} instead") from error
        raise


def _now(name: str, config: InterfaceConfig, status: DeviceStatus) -> InterfaceConfig:
    """The configuration that describes the running interface."""
    now = with_status(config, status)
    with Netlink() as netlink:
        addresses = netlink.addresses(name, config.addresses)
        mtu = netlink.link_mtu(name) if now.mtu else None
        now = replace(now, addresses=_in_order(config.addresses, addresses), mtu=mtu)
        if config.table == "auto" and not config.fwmark and netlink.has_default_route(name, status.fwmark):
            now = replace(now, fwmark=0)  # `up` chose the mark, and will choose one again
    return now


def _difference(path: Path, before: InterfaceConfig, after: InterfaceConfig) -> Saved:
    old, new = ({peer.public_key: peer for peer in config.peers} for config in (before, after))
    return Saved(
        path,
        interface=replace(before, peers=()) != replace(after, peers=()),
        added=tuple(key for key in new if key not in old),
        removed=tuple(key for key in old if key not in new),
        changed=tuple(key for key, peer in old.items() if key in new and peer != new[key]),
    )


def with_status(config: InterfaceConfig, status: DeviceStatus) -> InterfaceConfig:
    """Update a configuration from a device's status; what no device knows stays: names, DNS, hooks."""
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
    """A host name stays; a numeric address becomes the one the peer was last heard from."""
    if now.endpoint is None:
        return before
    if before and (before.is_host_name or (before.host.partition("%")[0], before.port) == now.endpoint[:2]):
        return before
    scope = f"%{now.endpoint.scope_id}" if now.endpoint.scope_id else ""
    return EndpointName(host=now.endpoint.host + scope, port=now.endpoint.port)


def _in_order(before: Iterable[_Item], now: Iterable[_Item]) -> tuple[_Item, ...]:
    """The items of `now`: first those of `before`, in that order, then the new ones."""
    rest = dict.fromkeys(now)
    return (*(item for item in before if item in rest), *(item for item in rest if item not in set(before)))
