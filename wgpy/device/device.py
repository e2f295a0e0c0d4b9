"""Device: WireGuard without input, output or a clock of its own.

Call it with what happened; it returns what to do::

    effects = device.send(burst, now)                       # packets the host wants carried
    effects = device.receive(datagrams, source, now, ecn)   # what a UDP socket brought
    effects = device.handle_timeout(now)                    # at or after device.next_timeout()
    effects = device.configure(change, now)                 # keys, peers, allowed IPs

`now` is seconds of CLOCK_BOOTTIME and never goes back; a late or early `handle_timeout` is harmless. Receiving follows
the kernel's receive.c: cheap refusals first, everything that is authenticated before anything is believed, and
bookkeeping (endpoint, timers, counters, the key's age) once per burst.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from struct import Struct

from wgpy.burst import Bodies, Burst, Datagrams
from wgpy.constants import (
    COOKIE_REPLY_SIZE,
    DEFAULT_MTU,
    INITIATION_SIZE,
    MESSAGE_COOKIE_REPLY,
    MESSAGE_INITIATION,
    MESSAGE_RESPONSE,
    MESSAGE_TRANSPORT,
    RESPONSE_SIZE,
    TRANSPORT_HEADER_SIZE,
    TRANSPORT_OVERHEAD,
)
from wgpy.device import icmp, ip
from wgpy.device.allowedips import AllowedIPs
from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.device.effects import DropReason, Effects, Transmit
from wgpy.device.gate import Gate
from wgpy.device.greetings import Greetings
from wgpy.device.keypair import Keypair
from wgpy.device.peer import Interface, Peer
from wgpy.device.ratelimiter import RateLimiter
from wgpy.device.status import DeviceStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import ProtocolError
from wgpy.fields import expect
from wgpy.keys import PrivateKey, PublicKey
from wgpy.noise.handshake import LocalStatic, open_initiation

_type_and_index = Struct("<II").unpack_from
_receiver_index = Struct("<8xI").unpack_from  # of a response
_HANDSHAKE_SIZES = {
    MESSAGE_INITIATION: INITIATION_SIZE,
    MESSAGE_RESPONSE: RESPONSE_SIZE,
    MESSAGE_COOKIE_REPLY: COOKIE_REPLY_SIZE,
}


class Device:
    """One WireGuard interface and its peers.

    `random(n)` returns n unpredictable bytes (os.urandom); `wall_clock()` nanoseconds since 1970 (time.time_ns). Both
    are asked only when a handshake or a jitter needs them, and a test can pass a seeded generator and a virtual clock.
    `keylog(label, key)`, if given, is told the keys of every handshake, by Wireshark's labels: it makes all traffic
    readable. `mtu`, in bytes, ends the padding of a packet that comes by itself, not in a Burst.
    A new device is down: `start` brings it up, as the link does in the kernel.
    """

    def __init__(
        self,
        *,
        random: Callable[[int], bytes],
        wall_clock: Callable[[], int],
        keylog: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._interface = Interface(random, wall_clock, keylog)
        self._private_key: PrivateKey | None = None
        self._peers: dict[PublicKey, Peer] = {}
        self._allowed_ips: AllowedIPs[Peer] = AllowedIPs()
        self._gate: Gate | None = None
        self._icmp_limiter = RateLimiter()
        self._deadlines: list[tuple[float, int, Peer]] = []
        self._tiebreak = count()
        self._drops: Counter[DropReason] = Counter()
        self._greetings: Greetings | None = None
        self.mtu = DEFAULT_MTU
        self.listen_port = 0
        self.fwmark = 0

    @property
    def timestamp_floor(self) -> int:
        """Nanoseconds since 1970 that no initiation of ours was stamped after; what follows is stamped later.

        Peers refuse an initiation that is not newer than the last, so a machine whose clock may start in the past keeps
        this over a restart and sets it before anything is sent.
        """
        return self._interface.timestamp_floor

    @timestamp_floor.setter
    def timestamp_floor(self, nanoseconds: int) -> None:
        self._interface.timestamp_floor = max(self._interface.timestamp_floor, nanoseconds)
        for peer in self._peers.values():
            peer.stamped_ns = max(peer.stamped_ns, nanoseconds)

    @property
    def public_key(self) -> PublicKey | None:
        """Its own; None without a private key."""
        return self._private_key.public_key if self._private_key else None

    def knows(self, public_key: PublicKey) -> bool:
        """Whether that is a peer of this device."""
        return public_key in self._peers

    @property
    def is_up(self) -> bool:
        return self._interface.is_up

    # Life.

    def resume(self, owner: PublicKey, sessions: Mapping[PublicKey, tuple[Endpoint, float]]) -> None:
        """Tell which peers had sessions with the process before this one, under our key `owner`.

        `sessions` says where each peer was and when its last session began, in seconds as `now` counts them elsewhere.
        To those peers a session looks alive for REJECT_AFTER_TIME, and what they send is lost until they give up. So an
        initiation is sent to each of them that is configured, paced, as soon as the interface is up. The endpoint
        counts only where the configuration gives none: what it says, or its host name, may be newer.
        """
        self._greetings = Greetings(owner, sessions)

    def _greet(self, peer: Peer, now: float) -> None:
        if self._greetings is not None and self._interface.is_up:
            greeting = self._greetings.take(self.public_key, peer.public_key, now)
            if greeting is not None:
                peer.greet(*greeting)

    def start(self, now: float) -> Effects:
        """The interface came up: timers run, and peers with a persistent keepalive are greeted."""
        effects = Effects()
        self._interface.is_up = True
        for peer in self._peers.values():
            peer.start(now, effects)
            self._greet(peer, now)
            self._schedule(peer)
        return effects

    def stop(self) -> None:
        """The interface went down: sessions, staged packets and timers go; configuration stays."""
        self._interface.is_up = False
        for peer in self._peers.values():
            peer.stop()

    def forget_sessions(self) -> None:
        """The machine was suspended: agree on new keys with everybody (kernel device.c, wg_pm_notification)."""
        for peer in self._peers.values():
            peer.erase_keys()
            peer.handshake_sent_at = -inf

    # Outbound.

    def send(self, burst: Burst | bytes, now: float) -> Effects:
        """Carry inner packets: a Burst (sealed in its own buffer, so its contents are gone afterwards) or one packet.

        Without a peer or an endpoint for the destination the effects deliver an ICMP error to the packet's source,
        as the kernel's wg_xmit does.
        """
        effects = Effects()
        if isinstance(burst, bytes):
            burst = Burst.of(burst, self.mtu)
        packet = burst.packet(0)
        destination = ip.destination(packet)
        if destination is None:
            self._drops[DropReason.NOT_IP] += len(burst)
        elif not self._interface.is_up:
            self._drops[DropReason.INTERFACE_DOWN] += len(burst)
        elif (peer := self._allowed_ips.lookup(destination)) is None:
            self._drops[DropReason.NO_PEER] += len(burst)
            self._answer_unreachable(packet, now, effects)
        elif peer.endpoint is None:
            peer.drops[DropReason.NO_ENDPOINT] += len(burst)
            self._answer_unreachable(packet, now, effects)
        elif peer.has_sealed(packet):
            peer.drops[DropReason.ROUTING_LOOP] += len(burst)
        else:
            peer.send(burst, now, effects)
            self._schedule(peer)
        return effects

    def _answer_unreachable(self, packet: memoryview, now: float, effects: Effects) -> None:
        source = ip.source(packet)
        error = icmp.unreachable(packet)
        if source is not None and error is not None and self._icmp_limiter.allow(source, now):
            effects.deliveries.append(Burst.of(error))

    def forget_source(self, public_key: PublicKey) -> None:
        """Tell that a transmit to this peer could not leave from its sticky source address any more."""
        if (peer := self._peers.get(public_key)) is not None:
            peer.forget_source()

    def not_sent(self, transmit: Transmit, count: int, size: int, reason: DropReason) -> None:
        """Tell, before the next call, that `count` datagrams of a transmit, of `size` bytes in all, did not leave.

        They do not count as sent then, but as dropped.
        """
        peer = self._peers.get(transmit.public_key) if transmit.public_key else None
        if peer is None:
            self._drops[reason] += count
        else:
            peer.not_sent(transmit.datagrams, count, size, reason)

    def forget_sources(self) -> None:
        """Tell that routes or addresses have changed: the routes choose each local address anew."""
        for peer in self._peers.values():
            peer.forget_source()

    # Inbound.

    def receive(
        self, datagrams: Datagrams, source: Endpoint, now: float, ecn: int = 0, *, under_load: bool = False
    ) -> Effects:
        """Take in datagrams from one source; `ecn` is the ECN field (0 to 3) of the outer packets.

        `under_load`: so many wait behind them that handshakes are to be answered by cookies (`load.LoadMeter`).
        Transport data is opened in place: a delivered burst lies in the buffer of `datagrams`.
        """
        effects = Effects()
        if not self._interface.is_up:
            self._drops[DropReason.INTERFACE_DOWN] += len(datagrams)
            return effects
        view, stride, total = datagrams.view, datagrams.segment_size, len(datagrams.view)
        lengths: list[int] = []
        while (start := len(lengths) * stride) < total:
            end = min(start + stride, total)
            kind, index = _type_and_index(view, start) if end - start >= TRANSPORT_OVERHEAD else (0, 0)
            if kind == MESSAGE_TRANSPORT and isinstance(keypair := self._interface.indices.get(index), Keypair):
                self._receive_data(keypair, datagrams, source, now, ecn, lengths, effects)
                continue
            lengths.append(0)
            if kind == MESSAGE_TRANSPORT:
                self._drops[DropReason.UNKNOWN_INDEX] += 1
            elif _HANDSHAKE_SIZES.get(kind) == end - start:
                self._receive_handshake(kind, view[start:end], source, now, effects, under_load)
            else:
                self._drops[DropReason.MALFORMED] += 1
        if any(lengths):
            effects.deliveries.append(Burst(view, stride, lengths, datagrams.cache))
        return effects

    def _receive_data(
        self,
        keypair: Keypair,
        datagrams: Datagrams,
        source: Endpoint,
        now: float,
        ecn: int,
        lengths: list[int],
        effects: Effects,
    ) -> None:
        """Open the run of datagrams under `keypair` that begins behind the `lengths` there are.

        Appends to `lengths` the length of each packet to deliver, 0 for none.
        """
        peer, first = keypair.peer, len(lengths)
        counters = keypair.counters(datagrams, first)
        if not keypair.can_receive(now):
            peer.drops[DropReason.EXPIRED_KEY] += len(counters)
            lengths += [0] * len(counters)
            return
        plaintexts, sealed = datagrams.bodies()
        if first or len(counters) < len(sealed):
            run = slice(first, first + len(counters))
            plaintexts, sealed = plaintexts[run], sealed[run]
        sizes = keypair.open(counters, Bodies(plaintexts, sealed))
        if -1 in sizes or not keypair.replay.accept_run(counters):
            for i, counter in enumerate(counters):
                if sizes[i] < 0:
                    peer.drops[DropReason.INVALID_TAG] += 1
                elif not keypair.replay.accept(counter):
                    peer.drops[DropReason.REPLAYED] += 1
                    sizes[i] = -1
        authenticated = len(sizes) - sizes.count(-1)
        if not authenticated:
            lengths += [0] * len(sizes)
            return
        data = authenticated - sizes.count(0)
        packets = self._packet_lengths(peer, datagrams, first, plaintexts, sizes)
        lengths += packets
        if ecn:
            for plaintext, length in zip(plaintexts, packets, strict=True):
                if length:
                    ip.decapsulate_ecn(plaintext, ecn)
        dropped = sizes.count(-1)
        peer.rx_bytes += sum(sizes) + dropped + (len(sizes) - dropped) * TRANSPORT_OVERHEAD  # each counts as -1
        peer.move_endpoint(source, effects)
        peer.confirm_keypair(keypair, now, effects)
        peer.keep_key_fresh_receiving(now, effects)
        peer.timers.any_authenticated_packet_received()
        peer.timers.any_authenticated_packet_traversal(now)
        if data:
            peer.timers.data_received(now)
            if data > 1:
                peer.timers.data_received(now)  # the second finds the first's keepalive pending
        self._schedule(peer)

    def _packet_lengths(
        self, peer: Peer, datagrams: Datagrams, first: int, plaintexts: list[memoryview], sizes: list[int]
    ) -> Sequence[int]:
        """The length, without padding, of each packet opened from datagram `first` on; 0 for none (kernel receive.c).

        One that the peer may not send is dropped, and its size becomes -1 as if it had not been opened.
        """
        stride = datagrams.segment_size
        if len(sizes) > 1:
            at = first * stride + TRANSPORT_HEADER_SIZE
            alike = ip.lengths_and_shared_source(datagrams.view, at, stride, sizes)
            if alike is not None and self._allowed_ips.lookup(alike[1]) is peer:
                return alike[0]
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
        awaiting = self._interface.indices.get(_receiver_index(message)[0]) if kind == MESSAGE_RESPONSE else None
        if self._gate is None:
            self._drops[DropReason.NO_IDENTITY] += 1
        elif kind == MESSAGE_COOKIE_REPLY:
            self._receive_cookie_reply(message, now)
        elif kind == MESSAGE_RESPONSE and not isinstance(awaiting, Peer):
            self._drops[DropReason.UNKNOWN_INDEX] += 1
        elif refusal := self._gate.refusal(message, source, now, effects, under_load, is_awaited=awaiting is not None):
            self._drops[refusal] += 1
        elif isinstance(awaiting, Peer):
            self._receive_response(awaiting, message, source, now, effects)
        else:
            self._receive_initiation(message, source, now, effects)

    def _receive_initiation(self, message: memoryview, source: Endpoint, now: float, effects: Effects) -> None:
        assert self._interface.local is not None  # there is a gate, so there is an identity
        try:
            opened = open_initiation(self._interface.local, message)
            peer = self._peers.get(opened.remote_public)
            if peer is None:
                self._drops[DropReason.UNKNOWN_PEER] += 1
                return
            initiation = opened.authenticate(peer.remote)
        except ProtocolError:
            self._drops[DropReason.INVALID_HANDSHAKE] += 1
            return
        refusal = peer.answer_initiation(initiation, source, now, effects)
        if refusal is not None:
            peer.drops[refusal] += 1
        self._schedule(peer)

    def _receive_response(self, peer: Peer, message: memoryview, source: Endpoint, now: float, out: Effects) -> None:
        try:
            peer.consume_response(message, source, now, out)
        except ProtocolError:
            peer.drops[DropReason.INVALID_HANDSHAKE] += 1
            return
        peer.rx_bytes += RESPONSE_SIZE
        peer.timers.any_authenticated_packet_received()
        peer.timers.any_authenticated_packet_traversal(now)
        self._schedule(peer)

    def _receive_cookie_reply(self, message: memoryview, now: float) -> None:
        _, index = _type_and_index(message)
        entry = self._interface.indices.get(index)
        if entry is None:
            self._drops[DropReason.UNKNOWN_INDEX] += 1
            return
        peer = entry.peer if isinstance(entry, Keypair) else entry
        if not peer.cookie_stamp.consume_reply(message, now):
            peer.drops[DropReason.INVALID_COOKIE] += 1

    # Time.

    def next_timeout(self) -> float | None:
        """When `handle_timeout` should be called, in the seconds of `now`; None when nothing is pending."""
        while self._deadlines:
            at, _, peer = self._deadlines[0]
            due = peer.timers.next_at()
            if at == peer.wakes_at == due:
                return at
            heappop(self._deadlines)  # the deadline has moved since it was noted
            if at == peer.wakes_at:
                peer.wakes_at = inf
                self._schedule(peer)
        return None

    def handle_timeout(self, now: float) -> Effects:
        """Fire the timers that are due."""
        effects = Effects()
        while (at := self.next_timeout()) is not None and at <= now:
            peer = self._deadlines[0][2]
            peer.handle_timeout(now, effects)
        return effects

    def _schedule(self, peer: Peer) -> None:
        """Note the peer's next deadline, if it is earlier than what is noted; later ones are found out when due."""
        at = peer.timers.next_at()
        if at < peer.wakes_at:
            peer.wakes_at = at
            heappush(self._deadlines, (at, next(self._tiebreak), peer))
            if len(self._deadlines) > 2 * len(self._peers) + 64:  # mostly deadlines that have moved since
                noted = (peer for peer in self._peers.values() if peer.wakes_at < inf)
                self._deadlines = [(peer.wakes_at, next(self._tiebreak), peer) for peer in noted]
                heapify(self._deadlines)

    # Configuration and status.

    def configure(self, change: DeviceChange, now: float) -> Effects:
        """Apply a change, all of it or, when it raises ConfigError, nothing (kernel netlink.c, wg_set_device).

        A peer that bears our own public key is silently left out; a private key that matches a peer removes that peer.
        """
        expect("change", change, DeviceChange)
        change.check(self._peers)
        effects = Effects()
        if change.listen_port is not None:
            self.listen_port = change.listen_port
            self.forget_sources()
        if change.fwmark is not None:
            self.fwmark = change.fwmark
            self.forget_sources()
        if change.replace_peers:
            for public_key in list(self._peers):
                self._remove_peer(public_key)
        if change.private_key is not None and change.private_key != (self._private_key or bytes(32)):
            self._set_private_key(change.private_key, now, effects)
        for peer_change in change.peers:
            self._configure_peer(peer_change, now, effects)
        return effects

    def _set_private_key(self, private_key: PrivateKey, now: float, effects: Effects) -> None:
        if private_key.is_zero():
            self._private_key = self._interface.local = self._gate = None
        else:
            self._remove_peer(private_key.public_key)
            self._private_key = private_key
            self._interface.local = LocalStatic(private_key)
            self._gate = Gate(private_key.public_key, self._interface.random)
        for peer in self._peers.values():
            peer.private_key_changed()
            if self._interface.is_up and peer.timers.persistent_keepalive:
                peer.send_keepalive(now, effects)
            elif self._interface.is_up:
                peer.send_staged(now, effects)
            self._schedule(peer)

    def _configure_peer(self, change: PeerChange, now: float, effects: Effects) -> None:
        peer = self._peers.get(change.public_key)
        if change.remove:
            self._remove_peer(change.public_key)
            return
        if peer is None:
            if change.update_only or (self._private_key and change.public_key == self._private_key.public_key):
                return
            peer = self._peers[change.public_key] = Peer(self._interface, change.public_key)
            if self._interface.is_up:
                peer.timers.start()
        if change.replace_allowed_ips:
            self._allowed_ips.remove_owner(peer)
        for allowed_ip in change.allowed_ips:
            if allowed_ip.remove:
                self._allowed_ips.remove(allowed_ip.network, peer)
            else:
                self._allowed_ips.insert(allowed_ip.network, peer)
        peer.configure(change, now, effects)
        self._greet(peer, now)
        self._schedule(peer)

    def _remove_peer(self, public_key: PublicKey) -> None:
        peer = self._peers.pop(public_key, None)
        if peer is not None:
            self._allowed_ips.remove_owner(peer)
            peer.stop()

    def status(self) -> DeviceStatus:
        """What the device is now, secrets included: the answer to `wg show`."""
        return DeviceStatus(
            private_key=self._private_key,
            public_key=self.public_key,
            listen_port=self.listen_port,
            fwmark=self.fwmark,
            peers=tuple(peer.status(self._allowed_ips.networks(peer)) for peer in self._peers.values()),
            drops={reason.value: n for reason, n in self._drops.items() if n},
        )
