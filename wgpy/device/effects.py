"""What a call of Device returns: datagrams to transmit, packets to deliver, events to report, and what others do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from wgpy.burst import Burst, Datagrams
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey
from wgpy.noise.handshake import InitiationReceived


class DropReason(StrEnum):
    """Why a datagram or a packet was dropped; `Device.status()` counts them."""

    # Datagrams that were never authenticated, or belong to no peer.
    MALFORMED = "malformed"
    """A datagram with the type and length of no WireGuard message."""
    INVALID_MAC1 = "invalid_mac1"
    """A handshake message that was not made for our public key."""
    UNDER_LOAD = "under_load"
    """A handshake message without a valid cookie while we are under load: it was answered with a cookie."""
    RATE_LIMITED = "rate_limited"
    """Too many handshake messages from one source."""
    UNKNOWN_INDEX = "unknown_index"
    """A datagram for a handshake or session that we do not have, or no longer have."""
    UNKNOWN_PEER = "unknown_peer"
    """A handshake with a public key that is not a peer's."""
    NO_IDENTITY = "no_identity"
    """A handshake message while no private key is set."""
    INVALID_HANDSHAKE = "invalid_handshake"
    """A handshake message that does not authenticate, for example because of another preshared key."""
    INVALID_COOKIE = "invalid_cookie"
    """A cookie reply that does not decrypt, or that we did not ask for."""
    # Handshakes of a known peer.
    REPLAYED_INITIATION = "replayed_initiation"
    """A handshake not newer than the peer's last one: a replay, or the peer's clock was set back."""
    INITIATION_FLOOD = "initiation_flood"
    """A peer began two handshakes within 20 ms."""
    # Transport data.
    EXPIRED_KEY = "expired_key"
    """A packet under a session that is too old, or has carried too many packets."""
    INVALID_TAG = "invalid_tag"
    """A packet that does not authenticate."""
    REPLAYED = "replayed"
    """A packet that was received before, or is older than the replay window."""
    INVALID_PACKET = "invalid_packet"
    """The decrypted content is not a whole IPv4 or IPv6 packet."""
    DISALLOWED_SOURCE = "disallowed_source"
    """The source address inside is not one of the peer's allowed IPs."""
    # Outbound packets.
    NOT_IP = "not_ip"
    """The interface was given something that is neither IPv4 nor IPv6."""
    NO_PEER = "no_peer"
    """No allowed IP covers the destination."""
    NO_ENDPOINT = "no_endpoint"
    """The peer has no endpoint, so it must call first."""
    ROUTING_LOOP = "routing_loop"
    """The peer's endpoint is routed into the tunnel, and to that peer."""
    STAGED_OVERFLOW = "staged_overflow"
    """Too many packets waited for a handshake; the oldest were dropped."""
    HANDSHAKE_ABANDONED = "handshake_abandoned"
    """The peer did not answer the last of 20 handshake attempts for which these packets waited."""
    INTERFACE_DOWN = "interface_down"
    """The interface is down."""
    # What belongs to a peer of another worker.
    HANDOVER_FULL = "handover_full"
    """The other worker could not take any more."""
    HANDOVER_MISPLACED = "handover_misplaced"
    """Another worker handed over what belongs to no peer of this one: the peer has just been moved."""
    # Datagrams that were to be transmitted.
    SEND_REFUSED = "send_refused"
    """The system refused to send: there is no route, or a firewall forbids it."""
    SOCKET_FULL = "socket_full"
    """The socket was full, and too many datagrams waited already."""


class Transmit(NamedTuple):
    """Datagrams for one endpoint."""

    datagrams: Datagrams
    """They may lie in the buffer of the burst that was sent: send or copy them before reading into it again."""
    endpoint: Endpoint
    """The address to send to, and the local address to send from."""
    traffic_class: int
    """The IPv4 TOS byte, or the IPv6 traffic class, of the outer packets."""
    public_key: PublicKey | None
    """The peer; None for a cookie reply."""


Sealed = tuple[Datagrams, Endpoint, int, PublicKey]
"""The fields of a `Transmit`, of a packet that comes alone: a plain tuple is made and read in a third of the time."""


class EventKind(StrEnum):
    """What has happened."""

    HANDSHAKE_COMPLETED = "handshake_completed"
    """There is a new session: the first one, or while packets flow the next one about every two minutes."""
    PEER_HEARD = "peer_heard"
    """The peer has sent something after silence: nothing authenticated had come from it for REJECT_AFTER_TIME (180
    seconds) or more, or ever. Data, keepalives and answers to our initiations count; an initiation does not, because it
    may be a replay. The event comes right after the new session's HANDSHAKE_COMPLETED, at most once in 180 seconds.
    """
    HANDSHAKE_UNANSWERED = "handshake_unanswered"
    """An initiation had no answer for five seconds; more will be sent. Only the first in a row is an event."""
    HANDSHAKE_ABANDONED = "handshake_abandoned"
    """20 initiations in a row have had no answer."""
    HANDSHAKE_REFUSED = "handshake_refused"
    """Initiations of the peer are authentic but refused: the event says why and where they came from."""
    ENDPOINT_MOVED = "endpoint_moved"
    """The peer was heard from another address or port."""
    KEYS_ERASED = "keys_erased"
    """Nine minutes have passed without a new session, and the keys of the old ones are gone."""


class Event(NamedTuple):
    """A change of a peer's state, reported once."""

    kind: EventKind
    """What happened."""
    public_key: PublicKey
    """To which peer."""
    endpoint: Endpoint | None
    """Where the peer is; of a refused handshake, where it came from."""
    reason: DropReason | None = None
    """Why a handshake was refused."""


class ForeignInitiation(NamedTuple):
    """An initiation that was opened and authenticated by a worker that does not serve its sender."""

    initiation: InitiationReceived
    """The state from which the peer's worker goes on."""
    source: Endpoint
    """Where the initiation came from."""


class Handover(NamedTuple):
    """Something for a peer that another worker serves (`share`)."""

    worker: int
    """The number of that worker."""
    what: Burst | ForeignInitiation
    """Packets to send to the peer, or an initiation that it sent. A burst may lie in the buffer of the one that was
    sent: pass it on before reading into it again."""

    @property
    def packets(self) -> int:
        """How many packets it is, an initiation being one."""
        return len(self.what) if isinstance(self.what, Burst) else 1


@dataclass(slots=True, init=False)
class Effects:
    """What a Device asks for, to be carried out in this order: transmit, hand over, deliver, report."""

    transmits: list[Transmit]
    """Datagrams to send."""
    deliveries: list[Burst]
    """Packets to write to the TUN."""
    events: list[Event]
    """What has changed for peers, to be reported."""
    unanswered: list[tuple[PublicKey, Endpoint | None]]
    """The peer and its endpoint for each initiation that had no answer, also when that is no event."""
    handovers: tuple[Handover, ...]
    """What belongs to peers that other workers serve."""

    def __init__(self) -> None:
        self.transmits = []
        self.deliveries = []
        self.events = []
        self.unanswered = []
        self.handovers = ()

    @property
    def involves_peers(self) -> bool:
        """Whether there is more than cookie replies, which anybody can get. Data and handshakes of peers count."""
        return bool(
            self.deliveries or self.events or self.handovers or any(transmit.public_key for transmit in self.transmits)
        )
