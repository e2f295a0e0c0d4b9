"""Everything as JSON without secrets, and the clients of another gateway's wg-quick file."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection

from wgpy.config.values import PeerConfig
from wgpy.config.wgquick import parse
from wgpy.errors import ConfigError
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.names import plain
from wgpy.gateway.policy.people import User
from wgpy.gateway.store import devices, endpoint, groups, routes, rules, users
from wgpy.gateway.store.database import Change
from wgpy.keys import PresharedKey

# A comment above [Peer], with the key that follows. No part of it is tried twice, however the text goes on.
_WG_EASY: Final = re.compile(
    r"^# Client: (.+) \([^(\n]*\)\n\[Peer\]\n(?:(?!\[).*\n)*?PublicKey *= *(\S+)", re.MULTILINE
)


def everything(connection: Connection) -> dict[str, Any]:
    """All objects, without any secret key."""
    kinds: dict[str, Any] = {"groups": groups, "users": users, "devices": devices, "routes": routes, "rules": rules}
    found = {name: [each.json() for each in kind.find_all(connection)] for name, kind in kinds.items()}
    return {"endpoint": endpoint.find(connection).json(), **found}


def take_over(change: Change, file: str, text: str, groups: Collection[str]) -> list[str]:
    """Make a user in `groups` and a device of each peer of a wg-quick file; returns their names.

    The file's private key and port become the endpoint's. `file` is its name, for messages. Raises ConfigError.
    """
    config = parse(text).config
    if config.private_key is None:
        raise ConfigError(f"{file}: has no PrivateKey; expected the file of a gateway")
    names = _names(text, config.peers)
    present = endpoint.find(change.connection)
    endpoint.take_over(change, config.private_key)
    if config.listen_port:
        endpoint.replace(change, replace(present, port=config.listen_port))
    for name, peer in zip(names, config.peers, strict=True):
        try:
            users.add(change, User(name=name, groups=frozenset(groups)))
            psk = peer.preshared_key or PresharedKey(bytes(32))  # all zero is none
            devices.add(change, name, name, peer.public_key, psk, _addresses(peer))
        except ConfigError as error:
            raise ConfigError(f"{file}: peer {name}: {error}; nothing was changed") from error
    return names


def _names(text: str, peers: Iterable[PeerConfig]) -> list[str]:
    """A name for each peer: its own, that of wg-easy's comment above it, or one by its place in the file."""
    comments = {key: name for name, key in _WG_EASY.findall(text)}
    return [
        plain(peer.name or comments.get(peer.public_key.base64(), "")) or f"peer-{number}"
        for number, peer in enumerate(peers, 1)
    ]


def _addresses(peer: PeerConfig) -> list[Address]:
    wide = [network for network in peer.allowed_ips if network.num_addresses > 1]
    if wide:
        raise ConfigError(
            f"AllowedIPs {wide[0]} is a network, so the peer is a site and no client; remove it from the file"
        )
    return [network.network_address for network in peer.allowed_ips]
