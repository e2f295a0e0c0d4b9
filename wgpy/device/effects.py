"""What a call on the Device asks of its caller: datagrams to transmit, packets to deliver, and what rarely happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from wgpy.burst import Burst, Datagrams
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey


class DropReason(StrEnum):
    """Why a datagram or a packet went no further; counted in `Device.status()`."""

    # Datagrams that were never authenticated, or belong to no peer.
    MALFORMED = "malformed"  # no known type and length
    INVALID_MAC1 = "invalid_mac1"
    UNDER_LOAD = "under_load"  # no valid cookie: answered with one
    RATE_LIMITED = "rate_limited"  # handshakes: too many from one source
    UNKNOWN_INDEX = "unknown_index"  # no handshake or session of ours
    UNKNOWN_PEER = "unknown_peer"
    NO_IDENTITY = "no_identity"  # no private key is set
    INVALID_HANDSHAKE = "invalid_handshake"
    INVALID_COOKIE = "invalid_cookie"
    # Handshakes of a known peer.
    REPLAYED_INITIATION = "replayed_initiation"  # not newer than the last; or the peer's clock was set back
    INITIATION_FLOOD = "initiation_flood"  # more than 20 a second
    # Transport data.
    EXPIRED_KEY = "expired_key"
    INVALID_TAG = "invalid_tag"
    REPLAYED = "replayed"
    INVALID_PACKET = "invalid_packet"  # not a whole IPv4 or IPv6 packet
    DISALLOWED_SOURCE = "disallowed_source"
    # Outbound packets.
    NOT_IP = "not_ip"
    NO_PEER = "no_peer"  # no allowed IP covers the destination
    NO_ENDPOINT = "no_endpoint"
    ROUTING_LOOP = "routing_loop"  # the peer's endpoint is routed into the tunnel, and to that peer
    STAGED_OVERFLOW = "staged_overflow"
    HANDSHAKE_ABANDONED = "handshake_abandoned"  # staged packets, after the last attempt
    INTERFACE_DOWN = "interface_down"
    # Datagrams that were to be transmitted.
    SEND_REFUSED = "send_refused"  # by the system: no route, or a firewall's rule
    SOCKET_FULL = "socket_full"  # too many waited already


class Transmit(NamedTuple):
    """Datagrams for one endpoint. `traffic_class` is the outer IPv4 TOS or IPv6 traffic class byte.

    `datagrams` may lie in the buffer of the burst that was sent: send them, or copy them, before reading into it again.
    """

    datagrams: Datagrams
    endpoint: Endpoint
    traffic_class: int
    public_key: PublicKey | None  # the peer; None for a cookie reply


class EventKind(StrEnum):
    """What an Event tells."""

    HANDSHAKE_COMPLETED = "handshake_completed"
    HANDSHAKE_UNANSWERED = "handshake_unanswered"  # the first initiation in a row, for five seconds; others follow
    HANDSHAKE_ABANDONED = "handshake_abandoned"  # no answer to 20 initiations in a row
    HANDSHAKE_REFUSED = "handshake_refused"  # authentic initiations of the peer: the event says why and from where
    ENDPOINT_MOVED = "endpoint_moved"
    KEYS_ERASED = "keys_erased"


class Event(NamedTuple):
    """A change of a peer's state. What goes on as before is not told again."""

    kind: EventKind
    public_key: PublicKey
    endpoint: Endpoint | None
    reason: DropReason | None = None  # of a refusal


@dataclass(slots=True)
class Effects:
    """To be carried out in this order: transmit, deliver, tell."""

    transmits: list[Transmit] = field(default_factory=list)
    deliveries: list[Burst] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    unanswered: list[tuple[PublicKey, Endpoint | None]] = field(default_factory=list)  # initiations, each time

    @property
    def concern_peers(self) -> bool:
        """Whether there is more than cookie replies, which anybody can have."""
        return bool(self.deliveries or self.events or any(transmit.public_key for transmit in self.transmits))
