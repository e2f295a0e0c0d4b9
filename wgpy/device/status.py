"""The configuration and counters of a device, as frozen values: what `wg show` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from wgpy.endpoint import Endpoint
from wgpy.keys import PresharedKey, PrivateKey, PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """The configuration and the counters of one peer."""

    public_key: PublicKey
    """The peer's identity."""
    preshared_key: PresharedKey | None = None
    """The preshared key; None for none."""
    endpoint: Endpoint | None = None
    """Where the peer was last heard from, or was configured to be."""
    allowed_ips: tuple[IPv4Network | IPv6Network, ...] = ()
    """The networks whose packets go to this peer."""
    last_handshake_ns: int = 0
    """When the last handshake completed, in nanoseconds since 1970; 0 for never."""
    tx_bytes: int = 0
    """Bytes of UDP payload sent to the peer, handshakes included."""
    rx_bytes: int = 0
    """Bytes of UDP payload received from the peer and authenticated."""
    persistent_keepalive: int = 0
    """Seconds between keepalives; 0 for none."""
    drops: Mapping[str, int] = field(default_factory=dict)
    """How many packets were dropped, by the value of their DropReason."""
    name: str = ""
    """What the configuration calls the peer."""

    def without_counters(self) -> PeerStatus:
        """The configuration and the endpoint, with all counters at zero."""
        endpoint = self.endpoint and self.endpoint.without_source()
        return replace(self, endpoint=endpoint, last_handshake_ns=0, tx_bytes=0, rx_bytes=0, drops={})


class WorkerStatus(NamedTuple):
    """One of the processes that divide an interface's peers among them."""

    pid: int
    """Its process id; 0 while another is being started in its place."""
    peers: int
    """How many peers it serves."""
    handed_over: int = 0
    """How many packets and initiations it has handed to other workers."""
    replaced: int = 0
    """How many processes have ended and were replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """The configuration and the counters of an interface."""

    private_key: PrivateKey | None = None
    """The interface's identity. Its `repr` does not show it."""
    public_key: PublicKey | None = None
    """The public half of the private key."""
    listen_port: int = 0
    """The UDP port; 0 before one was chosen."""
    fwmark: int = 0
    """The firewall mark of the datagrams that carry the tunnel; 0 for none."""
    peers: tuple[PeerStatus, ...] = ()
    """The peers, in the order they were added."""
    drops: Mapping[str, int] = field(default_factory=dict)
    """How many packets of no known peer were dropped, by the value of their DropReason."""
    handed_over: int = 0
    """How many packets and initiations came to one worker and were handed to the one that serves the peer."""
    workers: tuple[WorkerStatus, ...] = ()
    """The workers, if there are several."""

    def endpoints(self) -> list[Endpoint]:
        """The addresses of the peers that have one."""
        return [peer.endpoint for peer in self.peers if peer.endpoint]

    def without_counters(self) -> DeviceStatus:
        """The configuration and the endpoints, with all counters at zero."""
        peers = tuple(peer.without_counters() for peer in self.peers)
        return replace(self, drops={}, handed_over=0, workers=(), peers=peers)
