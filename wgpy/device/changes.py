"""What a caller may change, as frozen values: wg-quick files, UAPI text and library calls all become one DeviceChange.

The meaning of each field is the kernel's `WG_CMD_SET_DEVICE` (netlink.c). None leaves a thing as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from wgpy.endpoint import Endpoint
from wgpy.keys import PresharedKey, PrivateKey, PublicKey


@dataclass(frozen=True, slots=True)
class AllowedIPChange:
    """A prefix to give to the peer, taking it from whoever had it; or, with `remove`, to take from this peer."""

    network: IPv4Network | IPv6Network
    remove: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChange:
    """One peer to add, update or remove. A peer that exists is updated in place: its session and counters stay."""

    public_key: PublicKey
    remove: bool = False
    update_only: bool = False  # ignored when the peer does not exist
    preshared_key: PresharedKey | None = None  # all zero: no preshared key from the next handshake on
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None  # seconds, 0 to 65535; 0 is off
    replace_allowed_ips: bool = False  # empty the list before `allowed_ips`
    allowed_ips: tuple[AllowedIPChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChange:
    """One all-or-nothing change of a Device."""

    private_key: PrivateKey | None = None  # all zero: forget the identity
    listen_port: int | None = None  # 0: any free port
    fwmark: int | None = None  # 32 bits; 0: none
    replace_peers: bool = False  # remove every peer before `peers`
    peers: tuple[PeerChange, ...] = ()
