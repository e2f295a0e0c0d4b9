"""What comes from the UDP socket: messages of handshakes, and transport data (kernel receive.c).

As in the kernel, cheap refusals come first, and nothing is believed before it is authenticated. Bookkeeping (endpoint,
timers, counters, the key's age) is done once per burst for each peer, whose datagrams are opened together even if
others' lie between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from struct import Struct
from typing import Final

from wgpy.burst import Bodies, Burst, Datagrams
from wgpy.constants import (
    COOKIE_REPLY_SIZE,
    INITIATION_SIZE,
    MESSAGE_COOKIE_REPLY,
    MESSAGE_INITIATION,
    MESSAGE_RESPONSE,
    MESSAGE_TRANSPORT,
    RESPONSE_SIZE,
    TRANSPORT_HEADER_SIZE,
    TRANSPORT_OVERHEAD,
)
from wgpy.device import ip
from wgpy.device.allowedips import AllowedIPs
from wgpy.device.deadlines import Deadlines
from wgpy.device.effects import DropReason, Effects, ForeignInitiation, Handover
from wgpy.device.gate import Gate
from wgpy.device.indextable import IndexTable
from wgpy.device.interface import Interface
from wgpy.device.keypair import Keypair
from wgpy.device.peer import Peer
from wgpy.device.share import Foreign
from wgpy.endpoint import Endpoint, SenderChange
from wgpy.errors import ProtocolError
from wgpy.keys import PublicKey
from wgpy.noise.handshake import InitiationReceived, open_initiation

_type_and_index = Struct("<II").unpack_from
_receiver_index = Struct("<8xI").unpack_from  # of a response
_HANDSHAKE_SIZES: Final = {
    MESSAGE_INITIATION: INITIATION_SIZE,
    MESSAGE_RESPONSE: RESPONSE_SIZE,
    MESSAGE_COOKIE_REPLY: COOKIE_REPLY_SIZE,
}


class _Part:
    """The datagrams of a burst that came from one sender under one key of a peer: they are opened together."""

    __slots__ = ("ecn", "keypair", "peer", "runs", "source")

    def __init__(self, peer: Peer, keypair: Keypair, source: Endpoint, ecn: int) -> None:
        self.peer = peer
        self.keypair = keypair
        self.source = source
        self.ecn = ecn
        self.runs: list[tuple[int, tuple[int, ...]]] = []  # of neighbours: the first one's number, and their counters


class Receiver:
    """The receiving half of a Device, which shares its tables with it.

    `gate` refuses handshake messages; it is None while the interface has no private key.
    """

    def __init__(
        self,
        interface: Interface,
        indices: IndexTable[Peer],
        peers: Mapping[PublicKey, Peer],
        foreign: Mapping[PublicKey, Foreign],
        allowed_ips: AllowedIPs[Peer | Foreign],
        deadlines: Deadlines,
        drops: Counter[DropReason],
    ) -> None:
        self.gate: Gate | None = None
        self._interface = interface
        self._indices = indices
        self._peers = peers
        self._foreign = foreign
        self._allowed_ips = allowed_ips
        self._deadlines = deadlines
        self._drops = drops

    def receive(
        self,
        datagrams: Datagrams,
        source: Endpoint,
        now: float,
        ecn: int,
        effects: Effects,
        under_load: bool,
        senders: Sequence[SenderChange],
    ) -> None:
        """Take in datagrams as Device.receive does, and add what is to be done to `effects`."""
        view, stride = datagrams.view, datagrams.segment_size
        lengths = [0] * len(datagrams)
        parts: dict[Peer, _Part] = {}
        number = 0
        for until, next_source, next_ecn in (*senders, (len(lengths), source, ecn)):
            self._sort(datagrams, number, until, source, now, ecn, parts, lengths, effects, under_load)
            number, source, ecn = until, next_source, next_ecn
        for part in parts.values():
            self._open(part, datagrams, now, lengths, effects)
        if any(lengths):
            effects.deliveries.append(Burst(view, stride, lengths, datagrams.cache))

    def _sort(
        self,
        datagrams: Datagrams,
        number: int,
        until: int,
        source: Endpoint,
        now: float,
        ecn: int,
        parts: dict[Peer, _Part],
        lengths: list[int],
        effects: Effects,
        under_load: bool,
    ) -> None:
        """Add one sender's datagrams, from `number` up to `until`, to their peers' parts; handle all other messages.

        A peer's part is opened before something of that peer comes that does not belong to it, and all parts are opened
        before a handshake message is handled: so each peer's datagrams are handled in the order in which they came.
        """
        view, stride, short, total = datagrams.view, datagrams.segment_size, datagrams.short, len(datagrams.view)
        while number < until:
            start = number * stride
            end = min(start + (short.get(number, stride) if short else stride), total)
            kind, index = _type_and_index(view, start) if end - start >= TRANSPORT_OVERHEAD else (0, 0)
            if kind == MESSAGE_TRANSPORT and (entry := self._indices.get(index)) is not None and entry.keypair:
                part = parts.get(entry.peer)
                if part is None:
                    part = parts[entry.peer] = _Part(entry.peer, entry.keypair, source, ecn)
                elif part.keypair is not entry.keypair or part.source is not source or part.ecn != ecn:
                    self._open(parts.pop(entry.peer), datagrams, now, lengths, effects)
                    continue
                counters = entry.keypair.counters(datagrams, number, until)
                part.runs.append((number, counters))
                number += len(counters)
                continue
            number += 1
            if kind == MESSAGE_TRANSPORT:
                self._drops[DropReason.UNKNOWN_INDEX] += 1
            elif _HANDSHAKE_SIZES.get(kind) == end - start:
                for part in parts.values():
                    self._open(part, datagrams, now, lengths, effects)
                parts.clear()
                self._receive_handshake(kind, view[start:end], source, now, effects, under_load)
            else:
                self._drops[DropReason.MALFORMED] += 1

    def _open(self, part: _Part, datagrams: Datagrams, now: float, lengths: list[int], effects: Effects) -> None:
        """Open one peer's part of the datagrams, and note in `lengths` how long each packet is that is to be delivered.

        A part has one sender: somebody else's datagram in front of a peer's must not move the peer's endpoint.
        """
        peer, keypair, (first, counters) = part.peer, part.keypair, part.runs[0]
        slots: Sequence[int] = range(first, first + len(counters))
        if len(part.runs) > 1:
            slots = [i for at, run in part.runs for i in range(at, at + len(run))]
            counters = tuple(chain.from_iterable(run for _, run in part.runs))
        count = len(counters)
        if not keypair.can_receive(now):
            peer.drops[DropReason.EXPIRED_KEY] += count
            return
        plaintexts, sealed = datagrams.bodies()
        are_neighbours = slots[-1] - first == count - 1
        if not are_neighbours:
            plaintexts, sealed = [plaintexts[i] for i in slots], [sealed[i] for i in slots]
        elif count < len(sealed):
            plaintexts, sealed = plaintexts[first : first + count], sealed[first : first + count]
        sizes = keypair.open(counters, Bodies(plaintexts, sealed))
        if -1 in sizes or not keypair.replay.accept_run(counters):
            for i, counter in enumerate(counters):
                if sizes[i] < 0:
                    peer.drops[DropReason.INVALID_TAG] += 1
                elif not keypair.replay.accept(counter):
                    peer.drops[DropReason.REPLAYED] += 1
                    sizes[i] = -1
            if sizes.count(-1) == count:
                return
        packets = self._whole_packets(peer, datagrams, first, sizes) if are_neighbours else None
        data, dropped = count, 0
        if packets is None:
            data -= sizes.count(-1) + sizes.count(0)
            packets = self._judge(peer, plaintexts, sizes)
            dropped = sizes.count(-1)
        if are_neighbours:
            lengths[first : first + count] = packets
        else:
            for i, length in zip(slots, packets, strict=True):
                lengths[i] = length
        if part.ecn:
            for plaintext, length in zip(plaintexts, packets, strict=True):
                if length:
                    ip.decapsulate_ecn(plaintext, part.ecn)
        peer.rx_bytes += sum(sizes) + dropped + (count - dropped) * TRANSPORT_OVERHEAD  # each counts as -1
        peer.note_received(keypair, part.source, now, data, effects)
        self._deadlines.note(peer)

    def _whole_packets(self, peer: Peer, datagrams: Datagrams, first: int, sizes: list[int]) -> Sequence[int] | None:
        """The lengths without padding of the packets opened from datagram `first` on, if all are to be delivered."""
        if len(sizes) > 1:
            at = first * datagrams.segment_size + TRANSPORT_HEADER_SIZE
            alike = ip.lengths_and_shared_source(datagrams.view, at, datagrams.segment_size, sizes)
            if alike is not None and self._allowed_ips.lookup(alike[1]) is peer:
                return alike[0]
        return None

    def _judge(self, peer: Peer, plaintexts: list[memoryview], sizes: list[int]) -> Sequence[int]:
        """The length without padding of each opened packet; 0 for one that is dropped.

        A packet that is not whole, or that the peer may not send, is dropped, and its size becomes -1 as if it had not
        been opened (kernel receive.c, wg_packet_consume_data_done).
        """
        lengths = [0] * len(sizes)
        for i, size in enumerate(sizes):
            if size <= 0:
                continue
            length, source = ip.length_and_source(plaintexts[i])
            if length and self._allowed_ips.lookup(source) is peer:
                lengths[i] = length
            else:
                peer.drops[DropReason.DISALLOWED_SOURCE if length else DropReason.INVALID_PACKET] += 1
                sizes[i] = -1
        return lengths

    def _receive_handshake(
        self, kind: int, message: memoryview, source: Endpoint, now: float, effects: Effects, under_load: bool
    ) -> None:
        entry = self._indices.get(_receiver_index(message)[0]) if kind == MESSAGE_RESPONSE else None
        awaiting = entry.peer if entry is not None and entry.keypair is None else None
        if self.gate is None:
            self._drops[DropReason.NO_IDENTITY] += 1
        elif kind == MESSAGE_COOKIE_REPLY:
            self._receive_cookie_reply(message, now)
        elif kind == MESSAGE_RESPONSE and awaiting is None:
            self._drops[DropReason.UNKNOWN_INDEX] += 1
        elif refusal := self.gate.refusal(message, source, now, effects, under_load, is_awaited=awaiting is not None):
            self._drops[refusal] += 1
        elif awaiting is not None:
            self._receive_response(awaiting, message, source, now, effects)
        else:
            self._receive_initiation(message, source, now, effects)

    def _receive_initiation(self, message: memoryview, source: Endpoint, now: float, effects: Effects) -> None:
        assert self._interface.local is not None  # there is a gate, so there is an identity
        try:
            opened = open_initiation(self._interface.local, message)
            peer = self._peers.get(opened.remote_public)
            foreign = self._foreign.get(opened.remote_public) if peer is None else None
            if peer is not None:
                initiation = opened.authenticate(peer.handshake.remote)
            elif foreign is not None:
                initiation = opened.authenticate(foreign.remote(self._interface))
            else:
                self._drops[DropReason.UNKNOWN_PEER] += 1
                return
        except ProtocolError:
            self._drops[DropReason.INVALID_HANDSHAKE] += 1
            return
        if peer is not None:
            self._answer(peer, initiation, source, now, effects)
        elif foreign is not None and foreign.admits(initiation, now):
            self._interface.handed_over += 1
            effects.handovers += (Handover(foreign.worker, ForeignInitiation(initiation, source)),)
        else:
            self._drops[DropReason.REPLAYED_INITIATION] += 1

    def receive_opened(self, opened: ForeignInitiation, now: float, effects: Effects) -> None:
        """Answer an initiation that another worker has authenticated."""
        peer = self._peers.get(opened.initiation.remote_public)
        if peer is None:
            self._drops[DropReason.HANDOVER_MISPLACED] += 1
        else:
            self._answer(peer, opened.initiation, opened.source, now, effects)

    def _answer(
        self, peer: Peer, initiation: InitiationReceived, source: Endpoint, now: float, effects: Effects
    ) -> None:
        refusal = peer.answer_initiation(initiation, source, now, effects)
        if refusal is not None:
            peer.drops[refusal] += 1
        self._deadlines.note(peer)

    def _receive_response(self, peer: Peer, message: memoryview, source: Endpoint, now: float, out: Effects) -> None:
        try:
            peer.consume_response(message, source, now, out)
        except ProtocolError:
            peer.drops[DropReason.INVALID_HANDSHAKE] += 1
            return
        peer.rx_bytes += RESPONSE_SIZE
        peer.timers.received(now, data=0)
        self._deadlines.note(peer)

    def _receive_cookie_reply(self, message: memoryview, now: float) -> None:
        _, index = _type_and_index(message)
        entry = self._indices.get(index)
        if entry is None:
            self._drops[DropReason.UNKNOWN_INDEX] += 1
        elif not entry.peer.cookie_stamp.consume_reply(message, now):
            entry.peer.drops[DropReason.INVALID_COOKIE] += 1
