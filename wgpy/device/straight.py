"""The straight way of a burst that leaves, and of a datagram that comes alone. Most take it; others go device.py's way.

What the kernel does in send.c and receive.c for packets of a session is one function here in each direction: the calls
between the general way's functions take 5 % of a stream's time, and ten times as long after a rest, when the
processor's caches have forgotten the code. What calls for more than that (there is no session yet, a new handshake is
due, the peer has moved) is left as it was found, for the general way.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag

from wgpy.burst import Burst, Datagrams
from wgpy.constants import (
    MESSAGE_TRANSPORT,
    REJECT_AFTER_MESSAGES,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME,
    TRANSPORT_HEADER_SIZE,
    TRANSPORT_OVERHEAD,
)
from wgpy.device import ip
from wgpy.device.allowedips import AllowedIPs
from wgpy.device.deadlines import Deadlines
from wgpy.device.effects import DropReason, Sealed
from wgpy.device.indextable import IndexTable
from wgpy.device.interface import Interface
from wgpy.device.keypair import header, nonce
from wgpy.device.peer import REKEY_AFTER_TIME_RECEIVING, Peer
from wgpy.device.share import Foreign
from wgpy.endpoint import Endpoint

_transport_header = Struct("<IIQ").unpack_from  # type, index, counter
# Of a packet in its slot: traffic class, protocol, destination. IPv6's class begins in the first byte.
_ipv4 = Struct(f">{TRANSPORT_HEADER_SIZE}xxB7xB6x4s").unpack_from
_ipv6 = Struct(f">{TRANSPORT_HEADER_SIZE}xH4xB17x16s").unpack_from
_MAY_BE_UDP: Final = (17, 44)  # UDP, or a fragment's header in IPv6


class Straight:
    """What a Device does with most packets; it shares the device's tables."""

    __slots__ = ("_allowed_ips", "_find", "_interface", "_note")

    def __init__(
        self,
        interface: Interface,
        indices: IndexTable[Peer],
        allowed_ips: AllowedIPs[Peer | Foreign],
        deadlines: Deadlines,
    ) -> None:
        self._interface = interface
        self._find = indices.get
        self._allowed_ips = allowed_ips
        self._note = deadlines.note

    def send(self, burst: Burst, now: float) -> Sealed | None:
        """Seal a burst, in place; None if it takes more than that, and nothing is done.

        Its peer's timers and counters wait until it has left (`Device.sent`).
        """
        view, lengths = burst.view, burst.lengths
        length, count = lengths[0], len(lengths)
        version = view[TRANSPORT_HEADER_SIZE] >> 4
        if version == 4 and length >= ip.IPV4_HEADER_SIZE:
            traffic_class, protocol, destination = _ipv4(view)
        elif version == 6 and length >= ip.IPV6_HEADER_SIZE:
            traffic_class, protocol, destination = _ipv6(view)
            traffic_class >>= 4
        else:
            return None
        peer = self._allowed_ips.lookup(destination)
        if not isinstance(peer, Peer) or peer.staged or not self._interface.is_up:
            return None
        endpoint, keypair = peer.endpoint, peer.keypairs.current
        if (
            endpoint is None
            or keypair is None
            or not keypair.sending_valid
            or now - keypair.created_at >= REKEY_AFTER_TIME
            or keypair.send_counter + count > REKEY_AFTER_MESSAGES
        ):
            return None
        if protocol in _MAY_BE_UDP:
            payload = ip.udp_payload(burst.packet(0))
            if payload is not None and keypair.has_sealed(payload):
                return None  # the general way counts it as a loop
        if count > 1:
            keypair.seal(burst)
        else:  # setting up what seals many takes as long as sealing one
            counter = keypair.send_counter
            keypair.send_counter = counter + 1
            single = burst.single()
            single.padding[:] = single.zeros
            header(view, 0, keypair.sending_header, counter)
            keypair.sending.encrypt_into(nonce(counter), single.plaintext, None, single.sealed)
        ecn = traffic_class & 3
        return burst.datagrams(), endpoint, ip.ECT_0 if ecn == ip.CE else ecn, peer.public_key

    def receive(self, datagrams: Datagrams, source: Endpoint, now: float, ecn: int) -> int:
        """Open a lone datagram, in place: the length of its packet, which begins TRANSPORT_HEADER_SIZE bytes later.

        0 if no packet is to be delivered; -1 if it takes more than that, and nothing is done.
        """
        view = datagrams.view
        if not TRANSPORT_OVERHEAD <= len(view) <= datagrams.segment_size or not self._interface.is_up:
            return -1
        kind, index, counter = _transport_header(view)
        if kind != MESSAGE_TRANSPORT or (entry := self._find(index)) is None:
            return -1
        peer, keypair = entry
        if (
            keypair is None
            or keypair is not peer.keypairs.current
            or source is not peer.endpoint
            or now - keypair.created_at >= REKEY_AFTER_TIME_RECEIVING
            or keypair.replay.newest >= REJECT_AFTER_MESSAGES
        ):
            return -1
        single = datagrams.single()
        packet = single.plaintext
        try:
            size = keypair.receiving.decrypt_into(nonce(counter), single.sealed, None, packet)
        except InvalidTag:
            peer.drops[DropReason.INVALID_TAG] += 1
            return 0
        if not keypair.replay.accept(counter):
            peer.drops[DropReason.REPLAYED] += 1
            return 0
        peer.heard_at = now
        peer.timers.received(now, data=1 if size else 0)
        self._note(peer)
        length = 0
        if size:
            length, inner_source = ip.length_and_source(packet)
            if not length:
                peer.drops[DropReason.INVALID_PACKET] += 1
                return 0
            if self._allowed_ips.lookup(inner_source) is not peer:
                peer.drops[DropReason.DISALLOWED_SOURCE] += 1
                return 0
            if ecn:
                ip.decapsulate_ecn(packet, ecn)
        peer.rx_bytes += len(view)
        return length
