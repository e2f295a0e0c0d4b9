"""Changes of a configuration, as frozen values: wg-quick files, UAPI text and library calls all become a DeviceChange.

The fields mean what they mean in the kernel (netlink.c, WG_CMD_SET_DEVICE). None leaves a value as it is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from operator import itemgetter
from typing import Final, NamedTuple

from wgpy.constants import MAX_PEERS
from wgpy.endpoint import Endpoint
from wgpy.errors import ConfigError
from wgpy.fields import Field, expect, take
from wgpy.keys import PresharedKey, PrivateKey, PublicKey


class AllowedIPChange(NamedTuple):  # there may be 100,000 of them, and a dataclass takes twice as long to make
    """A prefix to give to the peer, which takes it from any other peer; or with `remove`, to take from the peer."""

    network: IPv4Network | IPv6Network
    """The prefix."""
    remove: bool = False
    """Whether to take it from the peer instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChange:
    """One peer to add, update or remove. A peer that exists is updated in place: its session and counters stay."""

    public_key: PublicKey
    """Which peer."""
    remove: bool = False
    """Whether to remove the peer."""
    update_only: bool = False
    """Whether to ignore this change when there is no such peer, instead of adding it."""
    preshared_key: PresharedKey | None = None
    """The key from the next handshake on; all zero for none."""
    endpoint: Endpoint | None = None
    """Where to send from now on: a numeric address and a port."""
    persistent_keepalive: int | None = None
    """Seconds between keepalives, 0 to 65535; 0 for none."""
    replace_allowed_ips: bool = False
    """Whether to empty the peer's list before `allowed_ips` are added."""
    allowed_ips: tuple[AllowedIPChange, ...] = ()
    """Prefixes to add or remove, in this order."""
    worker: int | None = None
    """The number of the worker that serves the peer from now on, for a Device with a share; a new peer is served by
    the device itself if this is None."""

    def __post_init__(self) -> None:
        take(self, _PEER_FIELDS)
        if self.endpoint is not None:
            _check(self.endpoint)
        if not {*map(type, map(itemgetter(0), self.allowed_ips))} <= {*_NETWORKS}:
            object.__setattr__(self, "allowed_ips", tuple(map(_read, self.allowed_ips)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChange:
    """One all-or-nothing change of a Device."""

    private_key: PrivateKey | None = None
    """A new identity; all zero to forget the present one."""
    listen_port: int | None = None
    """A new UDP port, 0 to 65535; 0 for any free one."""
    fwmark: int | None = None
    """A new firewall mark, 32 bits; 0 for none."""
    replace_peers: bool = False
    """Whether to remove every peer before `peers` are added."""
    peers: tuple[PeerChange, ...] = ()
    """Changes of peers, in this order."""

    def __post_init__(self) -> None:
        take(self, _DEVICE_FIELDS)

    def check(self, present: Collection[PublicKey]) -> None:
        """Raises ConfigError for a value out of range, or for too many peers beside those that are `present`."""
        if not 0 <= (self.listen_port or 0) <= 0xFFFF:
            raise ConfigError(f"listen port {self.listen_port} is not between 0 and 65535")
        if not 0 <= (self.fwmark or 0) <= 0xFFFFFFFF:
            raise ConfigError(f"fwmark {self.fwmark} is not a 32-bit number")
        for peer in self.peers:
            if not 0 <= (peer.persistent_keepalive or 0) <= 0xFFFF:
                raise ConfigError(
                    f"persistent keepalive {peer.persistent_keepalive} is not between 0 and 65535 seconds"
                )
        if len(self.peers) + len(present) <= MAX_PEERS:
            return
        keys = set() if self.replace_peers else set(present)
        for peer in self.peers:
            if peer.remove:
                keys.discard(peer.public_key)
            elif not peer.update_only:
                keys.add(peer.public_key)
            if len(keys) > MAX_PEERS:
                raise ConfigError(f"too many peers: {MAX_PEERS} is the most")


def _check(endpoint: Endpoint) -> None:
    """Check an endpoint here: its class does not, because one is made for each datagram received."""
    expect("PeerChange.endpoint: port", endpoint.port, int)
    try:
        is_numeric = len(endpoint.address_bytes) in (4, 16)
    except ValueError:
        is_numeric = False
    if not is_numeric:
        raise ConfigError(f"PeerChange.endpoint: {endpoint.host!a} is not a numeric address")


def _read(allowed: AllowedIPChange) -> AllowedIPChange:
    return allowed._replace(network=_NETWORK.take("AllowedIPChange.network", allowed.network))


_NOTHING: Final = type(None)
_NUMBER: Final = Field((int, _NOTHING), "a whole number or None")
_FLAG: Final = Field((bool,), "True or False")
_NETWORKS: Final = (IPv4Network, IPv6Network)
_READABLE: Final = (str, IPv4Address, IPv6Address)
_NETWORK: Final = Field(_NETWORKS, "an ipaddress.ip_network or its text", ip_network, _READABLE)
_PEER_FIELDS: Final = {
    "public_key": Field((PublicKey,), "a PublicKey or its base64", PublicKey.from_base64),
    "remove": _FLAG,
    "update_only": _FLAG,
    "preshared_key": Field((PresharedKey, _NOTHING), "a PresharedKey or its base64", PresharedKey.from_base64),
    "endpoint": Field((Endpoint, _NOTHING), "an Endpoint or its text, the address numeric", Endpoint.parse),
    "persistent_keepalive": _NUMBER,
    "worker": _NUMBER,
    "replace_allowed_ips": _FLAG,
    "allowed_ips": Field(
        (AllowedIPChange,),
        "an AllowedIPChange, a network, or the text of one",
        lambda given: AllowedIPChange(ip_network(given)),
        (*_READABLE, *_NETWORKS),
        many=True,
    ),
}
_DEVICE_FIELDS: Final = {
    "private_key": Field((PrivateKey, _NOTHING), "a PrivateKey or its base64", PrivateKey.from_base64),
    "listen_port": _NUMBER,
    "fwmark": _NUMBER,
    "replace_peers": _FLAG,
    "peers": Field((PeerChange,), "a PeerChange", many=True),
}
