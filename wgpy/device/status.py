"""What a device is, as frozen values: the answer to `wg show`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network

from wgpy.endpoint import Endpoint
from wgpy.keys import PresharedKey, PrivateKey, PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """One peer. Counters are bytes of UDP payload; `last_handshake_ns` is nanoseconds since 1970, 0 for never."""

    public_key: PublicKey
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    allowed_ips: tuple[IPv4Network | IPv6Network, ...] = ()
    last_handshake_ns: int = 0
    tx_bytes: int = 0
    rx_bytes: int = 0
    persistent_keepalive: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)  # by DropReason, packets
    name: str = ""  # what the configuration calls it

    def without_counters(self) -> PeerStatus:
        """What was configured, and where the peer is; nothing of what else has happened since."""
        endpoint = self.endpoint and self.endpoint.without_source()
        return replace(self, endpoint=endpoint, last_handshake_ns=0, tx_bytes=0, rx_bytes=0, drops={})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """The device and its peers, in the order they were added. `drops` counts what belongs to no peer."""

    private_key: PrivateKey | None = None
    public_key: PublicKey | None = None
    listen_port: int = 0
    fwmark: int = 0
    peers: tuple[PeerStatus, ...] = ()
    drops: Mapping[str, int] = field(default_factory=dict)

    def without_counters(self) -> DeviceStatus:
        """What was configured, and nothing of what has happened since."""
        return replace(self, drops={}, peers=tuple(peer.without_counters() for peer in self.peers))
