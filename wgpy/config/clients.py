"""The clients of a gateway, as peers in its own wg-quick file: addresses from a pool, and files for the clients.

A client that is disabled is a section of the file in comments, each line behind `#!`; it keeps its address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface, ip_network
from typing import Final

from wgpy.config.edit import rewritten, section_lines
from wgpy.config.values import EndpointName, InterfaceConfig, PeerConfig
from wgpy.config.wgquick import WgQuickFile, parse
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey

Network = IPv4Network | IPv6Network
Address = IPv4Interface | IPv6Interface

EVERYTHING: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))
KEEPALIVE: Final = 25  # seconds: below the patience of NATs
_OFF: Final = "#!"
_ENDPOINT: Final = re.compile(r"\s*#\s*Endpoint\s*=\s*(\S+)\s*", re.IGNORECASE)
_NAME: Final = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")  # the client's file is to be NAME.conf, and NAME an interface


@dataclass(frozen=True, slots=True)
class Client:
    """A client in the gateway's file."""

    peer: PeerConfig
    enabled: bool = True


def clients(file: WgQuickFile) -> list[Client]:
    """Every peer in the file, those in comments last."""
    return [*map(Client, file.config.peers), *(Client(peer, enabled=False) for peer in _disabled(file))]


def add(
    file: WgQuickFile, name: str, key: PrivateKey, psk: PresharedKey, pool: Sequence[Network] = ()
) -> tuple[WgQuickFile, tuple[Address, ...]]:
    """The file with a new client, and the client's addresses: the first free one of each network of the pool.

    The pool is where the interface's own addresses are, unless it is given. Raises ConfigError: a name that is no
    interface's name or is taken, a key that is there already, a pool without a free address.
    """
    if not _NAME.fullmatch(name) or not name.strip("."):
        raise ConfigError(
            f"{name!r}: expected a name of at most 15 letters, digits and _=+.-, for its file is NAME.conf"
        )
    present = clients(file)
    if any(client.peer.name == name for client in present):
        raise ConfigError(f"{name}: there is a client of that name already")
    if any(client.peer.public_key == key.public_key for client in present):
        raise ConfigError(f"{name}: a peer has that key already")
    pool = pool or [address.network for address in file.config.addresses if address.network.num_addresses > 1]
    if not pool:
        raise ConfigError("no pool of addresses: give --pool NETWORK, or [Interface] an Address with room beside it")
    taken = [network for client in present for network in client.peer.allowed_ips if network.prefixlen]
    addresses: tuple[Address, ...] = ()
    for network in pool:
        addresses += (_free(network, (*file.config.addresses, *addresses), taken),)
    peer = PeerConfig(
        public_key=key.public_key,
        preshared_key=psk,
        allowed_ips=tuple(ip_network(address.ip) for address in addresses),
        name=name,
    )
    return rewritten(file, replace(file.config, peers=(*file.config.peers, peer))), addresses


def remove(file: WgQuickFile, name: str) -> WgQuickFile:
    """The file without a client, enabled or not. Raises ConfigError when there is none of that name."""
    client = _find(file, name)
    if not client.enabled:
        file = enable(file, name)
    return rewritten(file, replace(file.config, peers=tuple(p for p in file.config.peers if p.name != name)))


def disable(file: WgQuickFile, name: str) -> WgQuickFile:
    """The file with a client's section in comments. Raises ConfigError."""
    if not _find(file, name).enabled:
        raise ConfigError(f"{name} is disabled already")
    lines = list(file.lines)
    (key,) = (peer.public_key for peer in file.config.peers if peer.name == name)
    for number in section_lines(file, key):
        lines[number - 1] = f"{_OFF} {lines[number - 1]}"
    return parse("\n".join(lines))


def enable(file: WgQuickFile, name: str) -> WgQuickFile:
    """The file with a client's section out of comments. Raises ConfigError, also if its place was taken meanwhile."""
    client = _find(file, name)
    if client.enabled:
        raise ConfigError(f"{name} is enabled already")
    for other in file.config.peers:
        if other.public_key == client.peer.public_key:
            raise ConfigError(f"{name}: {other.name or 'another peer'} has its key")
        if both := set(other.allowed_ips) & set(client.peer.allowed_ips):
            raise ConfigError(
                f"{name}: {other.name or 'another peer'} has {', '.join(map(str, sorted(both, key=str)))}"
            )
    lines = list(file.lines)
    for first, last in _runs(lines):
        section = [_on(line) for line in lines[first:last]]
        if parse("\n".join(section)).config.peers == (client.peer,):
            lines[first:last] = section
    return parse("\n".join(lines))


def client_file(
    gateway: InterfaceConfig,
    key: PrivateKey,
    psk: PresharedKey,
    addresses: Iterable[Address],
    endpoint: EndpointName,
    networks: Sequence[Network],
    dns: Sequence[str] = (),
) -> WgQuickFile:
    """What the client needs: the gateway as its only peer, reached at `endpoint`, leading to `networks`.

    Raises ConfigError for a gateway without a key.
    """
    if gateway.private_key is None:
        raise ConfigError("the gateway's file has no PrivateKey, from which the client's is to know its public key")
    peer = PeerConfig(
        public_key=gateway.private_key.public_key,
        preshared_key=psk,
        endpoint=endpoint,
        allowed_ips=tuple(networks),
        persistent_keepalive=KEEPALIVE,
    )
    config = InterfaceConfig(private_key=key, addresses=tuple(addresses), dns=tuple(dns), peers=(peer,))
    return rewritten(parse(""), config)


def endpoint_comment(file: WgQuickFile) -> str:
    """Where the gateway is to be found, from a comment above the first peer; empty without one."""
    end = min((block.headers[0] for block in file.blocks[1:]), default=len(file.lines) + 1)
    matches = filter(None, map(_ENDPOINT.fullmatch, file.lines[: end - 1]))
    return next((match[1] for match in matches), "")


def _find(file: WgQuickFile, name: str) -> Client:
    present = clients(file)
    match [client for client in present if client.peer.name == name]:
        case [client]:
            return client
        case [_, _, *_]:
            raise ConfigError(f"{name}: several clients have that name; rename one in the file")
    names = ", ".join(client.peer.name for client in present if client.peer.name)
    raise ConfigError(f"{name}: there is no client of that name{f'; there are {names}' if names else ''}")


def _free(network: Network, own: Iterable[Address], taken: Iterable[Network]) -> Address:
    """The first address of a network that nobody has. Its first, and IPv4's last, are nobody's."""
    others = [other for other in (*(ip_network(address.ip) for address in own), *taken)
              if other.version == network.version]  # fmt: skip
    spans = sorted((int(other.network_address), int(other.broadcast_address)) for other in others)
    roomy = network.num_addresses > 2
    free, last = int(network.network_address) + roomy, int(network.broadcast_address) - (roomy and network.version == 4)
    for first_taken, last_taken in spans:
        if first_taken <= free <= last_taken:
            free = last_taken + 1
    if free > last:
        raise ConfigError(f"{network}: every address of the pool is taken")
    return ip_interface(f"{network.network_address + (free - int(network.network_address))}/{network.max_prefixlen}")


def _disabled(file: WgQuickFile) -> list[PeerConfig]:
    return [
        peer
        for first, last in _runs(file.lines)
        for peer in parse("\n".join(map(_on, file.lines[first:last]))).config.peers
    ]


def _runs(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Where the sections in comments are: the index of each one's first line, and that after its last."""
    runs: list[tuple[int, int]] = []
    for index, line in enumerate(lines):
        if not line.startswith(_OFF):
            continue
        begins = _on(line).lstrip().startswith("[")
        if not begins and runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        elif begins:
            runs.append((index, index + 1))
    return runs


def _on(line: str) -> str:
    return line.removeprefix(_OFF).removeprefix(" ")
