"""Manages the clients of a gateway: peers in its wg-quick file, addresses from a pool, and the clients' own files.

A disabled client is a [Peer] section that is commented out, each line with `#!` before it. It keeps its address.
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
KEEPALIVE: Final = 25  # seconds; shorter than the time after which NATs forget a flow
_DISABLED: Final = "#!"
_ENDPOINT: Final = re.compile(r"\s*#\s*Endpoint\s*=\s*(\S+)\s*", re.IGNORECASE)
_NAME: Final = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")  # a valid interface name, because the client's file is NAME.conf


@dataclass(frozen=True, slots=True)
class Client:
    """A client in the gateway's file."""

    peer: PeerConfig
    enabled: bool = True


def clients(file: WgQuickFile) -> list[Client]:
    """All clients in the file: every peer, then the disabled ones."""
    return [*map(Client, file.config.peers), *(Client(peer, enabled=False) for peer in _disabled(file))]


def add(
    file: WgQuickFile, name: str, key: PrivateKey, psk: PresharedKey, pool: Sequence[Network] = ()
) -> tuple[WgQuickFile, tuple[Address, ...]]:
    """Add a client. Returns the new file, and the client's addresses: the first free one of each network in `pool`.

    Without a pool, the networks of the interface's own addresses are used. Raises ConfigError if the name is not a
    valid interface name or is taken, the key is in use, or a network has no free address.
    """
    if not _NAME.fullmatch(name) or not name.strip("."):
        raise ConfigError(
            f"{name!r}: expected a name of at most 15 letters, digits and _=+.-, which will name its interface"
        )
    present = clients(file)
    if any(client.peer.name == name for client in present):
        raise ConfigError(f"{name}: a client of that name exists already")
    if any(client.peer.public_key == key.public_key for client in present):
        raise ConfigError(f"{name}: another peer has that key already")
    pool = pool or [address.network for address in file.config.addresses if address.network.num_addresses > 1]
    if not pool:
        raise ConfigError("no pool of addresses: give --pool NETWORK, or [Interface] an Address in a network with room")
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
    """Remove a client, enabled or not. Raises ConfigError if there is none of that name."""
    client = find(file, name)
    if not client.enabled:
        file = enable(file, name)
    return rewritten(file, replace(file.config, peers=tuple(p for p in file.config.peers if p.name != name)))


def disable(file: WgQuickFile, name: str) -> WgQuickFile:
    """Comment out a client's section. Raises ConfigError if there is no such client, or it is disabled already."""
    if not find(file, name).enabled:
        raise ConfigError(f"{name}: already disabled")
    lines = list(file.lines)
    (key,) = (peer.public_key for peer in file.config.peers if peer.name == name)
    for number in section_lines(file, key):
        lines[number - 1] = f"{_DISABLED} {lines[number - 1]}"
    return parse("\n".join(lines))


def enable(file: WgQuickFile, name: str) -> WgQuickFile:
    """Restore a disabled client's section. Raises ConfigError, also if another peer has its key or address by now."""
    client = find(file, name)
    if client.enabled:
        raise ConfigError(f"{name}: already enabled")
    for other in file.config.peers:
        if other.public_key == client.peer.public_key:
            raise ConfigError(f"{name}: {other.name or 'another peer'} now has its key")
        if both := set(other.allowed_ips) & set(client.peer.allowed_ips):
            raise ConfigError(
                f"{name}: {other.name or 'another peer'} now has {', '.join(map(str, sorted(both, key=str)))}"
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
    """Make the client's own file, with the gateway as its only peer: at `endpoint`, and with `networks` behind it.

    Raises ConfigError if the gateway's configuration has no private key.
    """
    if gateway.private_key is None:
        raise ConfigError("the gateway's file has no PrivateKey, so its public key is not known")
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
    """The gateway's public endpoint, from a comment `# Endpoint = ...` above the first peer; empty if there is none."""
    end = min((block.headers[0] for block in file.blocks[1:]), default=len(file.lines) + 1)
    matches = filter(None, map(_ENDPOINT.fullmatch, file.lines[: end - 1]))
    return next((match[1] for match in matches), "")


def find(file: WgQuickFile, name: str) -> Client:
    """The client of that name. Raises ConfigError if there is none, or several."""
    present = clients(file)
    match [client for client in present if client.peer.name == name]:
        case [client]:
            return client
        case [_, _, *_]:
            raise ConfigError(f"{name}: several clients have that name; rename all but one in the file")
    names = ", ".join(client.peer.name for client in present if client.peer.name)
    raise ConfigError(
        f"{name}: no client has that name; {f'the clients are {names}' if names else 'no client here has a name'}"
    )


def _free(network: Network, own: Iterable[Address], taken: Iterable[Network]) -> Address:
    """The first free address of a network. The network's first address, and in IPv4 the last, are never given out."""
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
    """The sections that are commented out: the index of each one's first line, and that after its last line."""
    runs: list[tuple[int, int]] = []
    for index, line in enumerate(lines):
        if not line.startswith(_DISABLED):
            continue
        begins = _on(line).lstrip().startswith("[")
        if not begins and runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        elif begins:
            runs.append((index, index + 1))
    return runs


def _on(line: str) -> str:
    return line.removeprefix(_DISABLED).removeprefix(" ")
