"""`wgpy gateway export`, and `import` of another gateway's wg-quick file."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from wgpy.config.values import PeerConfig
from wgpy.config.wgquick import parse
from wgpy.daemon.files import read_text
from wgpy.errors import ConfigError
from wgpy.gateway.cli import common
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.names import plain
from wgpy.gateway.policy.people import User
from wgpy.keys import PresharedKey

# A comment above [Peer], with the key that follows.
_WG_EASY: Final = re.compile(r"^# Client: (.+) \(.*\)\n\[Peer\]\n(?:(?!\[).*\n)*?PublicKey *= *(\S+)", re.MULTILINE)


def add(objects: Any) -> None:
    common.command(
        objects,
        "export",
        "print all objects as JSON, without any secret key",
        _export,
        epilog="To move a gateway, use `wgpy gateway backup` and its key file.",
    )
    made = common.command(
        objects,
        "import",
        "take over the clients of a wg-quick file, such as those of `wgpy client` or wg-easy",
        _import,
        epilog="Each peer becomes a user with one device, both with the peer's name. The file's private key and port "
        "become the gateway's, so clients connect as before, with the files that they have.",
    )
    made.add_argument(
        "file", metavar="FILE", type=Path, help="the other gateway's file, such as /etc/wireguard/wg0.conf"
    )
    made.add_argument("--group", metavar="GROUP", action="append", default=[], help="a group that the users are in")


def _export(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import devices, endpoint, groups, routes, rules, users

    with common.reading(arguments) as connection:
        kinds = {"groups": groups, "users": users, "devices": devices, "routes": routes, "rules": rules}
        found = {name: [each.json() for each in kind.find_all(connection)] for name, kind in kinds.items()}
        print(json.dumps({"endpoint": endpoint.find(connection).json(), **found}, indent=2))
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import devices, endpoint, users

    text = read_text(arguments.file)
    config = parse(text).config
    if config.private_key is None:
        raise ConfigError(f"{arguments.file}: has no PrivateKey; expected the file of a gateway")
    names = _names(text, config.peers)
    with common.changing(arguments) as change:
        present = endpoint.find(change.connection)
        endpoint.take_over(change, config.private_key)
        if config.listen_port:
            endpoint.replace(change, replace(present, port=config.listen_port))
        for name, peer in zip(names, config.peers, strict=True):
            try:
                users.add(change, User(name=name, groups=frozenset(arguments.group)))
                psk = peer.preshared_key or PresharedKey(bytes(32))  # all zero is none
                devices.add(change, name, name, peer.public_key, psk, _addresses(peer))
            except ConfigError as error:
                raise ConfigError(f"{arguments.file}: peer {name}: {error}; nothing was changed") from error
    what = f"{len(names)} clients of {arguments.file} taken over; take that interface down before you run the gateway"
    return common.done(arguments, what, {"users": names, "devices": names})


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
