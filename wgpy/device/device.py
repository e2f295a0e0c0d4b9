"""Device: WireGuard without input, output or a clock of its own.

Call it with what happened; it returns what to do::

    effects = device.send(burst, now)                       # packets the host wants carried
    effects = device.receive(datagrams, source, now, ecn)   # what a UDP socket brought
    effects = device.handle_timeout(now)                    # at or after device.next_timeout()
    effects = device.configure(change, now)                 # keys, peers, allowed IPs

`now` is seconds of CLOCK_BOOTTIME and never goes back; a late or early `handle_timeout` is harmless. This module is
to be read beside the kernel's device.c (up, down, suspend, a packet's way to its peer) and netlink.c (configuration and
status); receive.py beside receive.c, and peer.py beside send.c, timers.c and peer.c.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import Final

from wgpy.burst import Burst, Datagrams
from wgpy.constants import DEFAULT_MTU
from wgpy.device import icmp, ip
from wgpy.device.allowedips import AllowedIPs
from wgpy.device.changes import DeviceChange, PeerChange
from wgpy.device.deadlines import Deadlines
from wgpy.device.effects import DropReason, Effects, Handover, Sealed, Transmit
from wgpy.device.gate import Gate
from wgpy.device.indextable import IndexTable, random_index
from wgpy.device.interface import Interface
from wgpy.device.peer import Peer
from wgpy.device.ratelimiter import RateLimiter
from wgpy.device.receive import Receiver
from wgpy.device.resumption import Resumption
from wgpy.device.share import Foreign, Share
from wgpy.device.status import DeviceStatus
from wgpy.device.straight import Straight
from wgpy.endpoint import Endpoint, SenderChange
from wgpy.errors import ConfigError
from wgpy.fields import expect
from wgpy.keys import PrivateKey, PublicKey
from wgpy.noise.handshake import LocalStatic
from wgpy.noise.tai64n import TIMESTAMP_SIZE

PEERS_AT_ONCE: Final = 16  # whose timers fire in one call: each may begin a handshake, which takes up to 0.3 ms


class Device:
    """One WireGuard interface and its peers.

    `random(n)` returns n unpredictable bytes (os.urandom), `wall_clock()` nanoseconds since 1970 (time.time_ns). They
    are called only when a handshake or a jitter needs them, and a test can pass a seeded generator and a virtual clock.
    `keylog(label, key)`, if given, is called with the keys of every handshake and Wireshark's labels for them, which
    make all traffic readable. With a `share`, the device is one of several workers that divide the peers among them
    (`PeerChange.worker`): what belongs to a peer of another one comes back in `Effects.handovers`.
    A new device is down: `start` brings it up, as the link does in the kernel.
    """

    mtu: int
    """The inner MTU in bytes: a packet given to `send` as bytes is padded to no more than that."""
    listen_port: int
    """The UDP port that was configured, 0 for any. Whoever owns the sockets opens it; the device has none."""
    fwmark: int
    """The firewall mark that was configured, 32 bits; 0 for none."""
    send_straight: Callable[[Burst, float], Sealed | None]
    """`send(burst, now)` in fewer steps: the fields of its transmit; None if it takes more than those
    (`Straight.send`). Tell `sent` when the transmit has left."""
    receive_lone: Callable[[Datagrams, Endpoint, float, int], int]
    """`receive(datagrams, source, now, ecn)` for one datagram, in fewer steps: the length in bytes of its packet; 0 if
    there is none to deliver, -1 if it takes more than those (`Straight.receive`)."""
    quiet_until: Callable[[], float]
    """No timer is due before what this returns, in the seconds of `now`; `next_timeout`, which may return a later time,
    takes longer."""
    share: Share
    """Which of the interface's workers this device is."""

    def __init__(
        self,
        *,
        random: Callable[[int], bytes],
        wall_clock: Callable[[], int],
        keylog: Callable[[str, bytes], None] | None = None,
        share: Share = Share(),  # noqa: B008 (frozen)
    ) -> None:
        self.share = share
        self._interface = Interface(random, wall_clock, keylog)
        self._private_key: PrivateKey | None = None
        self._peers: dict[PublicKey, Peer] = {}
        self._foreign: dict[PublicKey, Foreign] = {}
        self._allowed_ips: AllowedIPs[Peer | Foreign] = AllowedIPs()
        self._indices: IndexTable[Peer] = IndexTable(lambda: share.index(random_index(random)))
        self._deadlines = Deadlines(self._peers)
        self._drops: Counter[DropReason] = Counter()
        self._receiver = Receiver(
            self._interface, self._indices, self._peers, self._foreign, self._allowed_ips, self._deadlines, self._drops
        )
        straight = Straight(self._interface, self._indices, self._allowed_ips, self._deadlines)
        self.send_straight, self.receive_lone = straight.send, straight.receive
        self._icmp_limiter = RateLimiter()
        self._resumption: Resumption | None = None
        self.quiet_until = self._deadlines.earliest
        self.mtu = DEFAULT_MTU
        self.listen_port = 0
        self.fwmark = 0

    @property
    def timestamp_floor(self) -> int:
        """Nanoseconds since 1970: no initiation of ours bore a later timestamp, and the next one will.

        Peers refuse an initiation that is not newer than the last one. So a machine whose clock may start in the past
        keeps this value over a restart, and sets it before anything is sent.
        """
        return self._interface.timestamp_floor

    @timestamp_floor.setter
    def timestamp_floor(self, nanoseconds: int) -> None:
        self._interface.timestamp_floor = max(self._interface.timestamp_floor, nanoseconds)
        for peer in self._peers.values():
            peer.handshake.stamped_ns = max(peer.handshake.stamped_ns, nanoseconds)

    @property
    def public_key(self) -> PublicKey | None:
        """Our own public key; None without a private key."""
        return self._private_key.public_key if self._private_key else None

    def knows(self, public_key: PublicKey) -> bool:
        """Whether that is the key of a peer that this device serves."""
        return public_key in self._peers

    def peer_at(self, address: bytes) -> PublicKey | None:
        """The peer whose allowed IPs contain an address of 4 or 16 bytes; None if there is none."""
        peer = self._allowed_ips.lookup(address)
        return peer.public_key if peer is not None else None

    def has_session(self, public_key: PublicKey, now: float) -> bool:
        """Whether there is a session with this peer under which packets can be sent."""
        peer = self._peers.get(public_key)
        current = peer.keypairs.current if peer is not None else None
        return current is not None and current.can_send(1, now)

    def last_initiation(self, public_key: PublicKey) -> bytes:
        """The TAI64N timestamp, 12 bytes, of the newest initiation of this peer that was answered; or zeros."""
        peer = self._peers.get(public_key)
        return peer.handshake.latest_timestamp if peer is not None else bytes(TIMESTAMP_SIZE)

    def refuse_initiations(self, public_key: PublicKey, timestamp: bytes) -> None:
        """Refuse initiations of this peer that are not newer than `timestamp`, which another Device has answered.

        Otherwise whoever has recorded one could have the peer's packets sent to himself by replaying it, because an
        initiation that is answered moves the endpoint (kernel receive.c, wg_receive_handshake_packet).
        """
        if (peer := self._peers.get(public_key)) is not None:
            peer.handshake.latest_timestamp = max(peer.handshake.latest_timestamp, timestamp)

    @property
    def is_up(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._interface.is_up

    # Life.

    def resume(self, owner: PublicKey, sessions: Mapping[PublicKey, tuple[Endpoint, float]]) -> None:
        """Tell which peers had sessions with the process before this one, under our public key `owner`.

        `sessions` has each peer's endpoint, and when its last session began in the seconds of `now`. To those peers
        the session looks alive for REJECT_AFTER_TIME, and what they send is lost until they give it up. So as soon as
        the interface is up, an initiation is sent to each of them that is configured, one after the other. The endpoint
        is used only if the configuration gives none: an address or host name in there may be newer. Such a peer counts
        as heard when its session began (`EventKind.PEER_HEARD`).
        """
        self._resumption = Resumption(owner, sessions)

    def _resume(self, peer: Peer, now: float) -> None:
        if self._resumption is not None and self._interface.is_up:
            found = self._resumption.take(self.public_key, peer.public_key, now)
            if found is not None:
                peer.resume(*found)

    def start(self, now: float) -> Effects:
        """The interface came up: timers run, and peers with a persistent keepalive get one as their timers fire."""
        effects = Effects()
        self._interface.is_up = True
        for peer in self._peers.values():
            peer.start(now, effects)
            self._deadlines.note(peer)
        self._fire(now, effects)
        for peer in self._peers.values():
            self._resume(peer, now)
            self._deadlines.note(peer)
        return effects

    def stop(self) -> None:
        """The interface went down: sessions, staged packets and timers go; configuration stays."""
        self._interface.is_up = False
        for peer in self._peers.values():
            peer.stop()

    def forget_sessions(self) -> None:
        """The machine was suspended: agree on new keys with every peer (kernel device.c, wg_pm_notification)."""
        for peer in self._peers.values():
            peer.erase_keys()
            peer.handshake_sent_at = -inf

    # Outbound.

    def send(self, burst: Burst | bytes, now: float) -> Effects:
        """Carry inner packets: one packet as bytes, or a Burst, which is sealed in its own buffer and so overwritten.

        Without a peer or an endpoint for the destination, the effects deliver an ICMP error to the packet's source, as
        the kernel does (device.c, wg_xmit).
        """
        effects = Effects()
        if isinstance(burst, bytes):
            burst = Burst.of(burst, self.mtu)
        if (sealed := self.send_straight(burst, now)) is not None:
            self.sent(sealed, now)
            effects.transmits.append(Transmit(*sealed))
            return effects
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
            if isinstance(peer, Foreign):
                effects.handovers = (Handover(peer.worker, burst),)
                self._interface.handed_over += len(burst)
            else:
                peer.drops[DropReason.NO_ENDPOINT] += len(burst)
                self._answer_unreachable(packet, now, effects)
        elif (payload := ip.udp_payload(packet)) is not None and peer.has_sealed(payload):
            peer.drops[DropReason.ROUTING_LOOP] += len(burst)
        else:
            peer.send(burst, now, effects)
            self._deadlines.note(peer)
        return effects

    def sent(self, sealed: Sealed, now: float) -> None:
        """Tell, before the next call, that what `send_straight` returned was sent. If not, `not_sent` comes after."""
        datagrams, _, _, public_key = sealed
        peer = self._peers[public_key]
        peer.timers.sent(now, data=True)
        peer.tx_bytes += len(datagrams.view)
        self._deadlines.note(peer)

    def take_over(self, handover: Handover, now: float) -> Effects:
        """Go on with what another worker has handed to this one. It is handed over once, and never on to a third.

        A burst is sealed in its own buffer and so overwritten.
        """
        if isinstance(handover.what, Burst):
            effects = self.send(handover.what, now)
            for misplaced in effects.handovers:
                self.not_handed_over(misplaced, DropReason.HANDOVER_MISPLACED)
            effects.handovers = ()
        else:
            effects = Effects()
            if self._interface.is_up:
                self._receiver.receive_opened(handover.what, now, effects)
            else:
                self._drops[DropReason.INTERFACE_DOWN] += 1
        return effects

    def not_handed_over(self, handover: Handover, reason: DropReason) -> None:
        """Tell that a handover has not reached its worker: it counts under `reason`, and no longer as handed over."""
        self._interface.handed_over -= handover.packets
        self._drops[reason] += handover.packets

    def _answer_unreachable(self, packet: memoryview, now: float, effects: Effects) -> None:
        source = ip.source(packet)
        error = icmp.unreachable(packet)
        if source is not None and error is not None and self._icmp_limiter.allow(source, now):
            effects.deliveries.append(Burst.of(error))

    def sources(self) -> Iterator[tuple[PublicKey, Endpoint]]:
        """The peers that are answered from the local address that they spoke to, with their endpoints."""
        for peer in self._peers.values():
            if peer.endpoint is not None and peer.endpoint.source:
                yield peer.public_key, peer.endpoint

    def forget_source(self, public_key: PublicKey) -> None:
        """Tell that what is sent to this peer can no longer leave from the source address used so far."""
        if (peer := self._peers.get(public_key)) is not None:
            peer.forget_source()

    def not_sent(self, transmit: Transmit, count: int, size: int, reason: DropReason) -> None:
        """Tell, before the next call, that `count` datagrams of a transmit, `size` bytes in all, were not sent.

        They are counted under `reason` then, and no longer as sent.
        """
        peer = self._peers.get(transmit.public_key) if transmit.public_key else None
        if peer is None:
            self._drops[reason] += count
        else:
            peer.not_sent(transmit.datagrams, count, size, reason)

    def forget_sources(self) -> None:
        """Let the routes choose the source address to each peer anew."""
        for peer in self._peers.values():
            peer.forget_source()

    # Inbound.

    def receive(
        self,
        datagrams: Datagrams,
        source: Endpoint,
        now: float,
        ecn: int = 0,
        *,
        under_load: bool = False,
        senders: Sequence[SenderChange] = (),
    ) -> Effects:
        """Take in datagrams from `source`; `ecn` is the ECN field (0 to 3) of the outer packets (RFC 6040).

        If those that follow are of others, `senders` says where each one's begin.
        `under_load` says that so many datagrams wait behind them that initiations are answered by cookies (paper, 5.3;
        `load.LoadMeter`). Transport data is opened in place: a delivered burst lies in the buffer of `datagrams`.
        """
        effects = Effects()
        if not self._interface.is_up:
            self._drops[DropReason.INTERFACE_DOWN] += len(datagrams)
            return effects
        if not senders and (length := self.receive_lone(datagrams, source, now, ecn)) >= 0:
            if length:
                effects.deliveries.append(datagrams.opened(length))
            return effects
        self._receiver.receive(datagrams, source, now, ecn, effects, under_load, senders)
        return effects

    # Time.

    def next_timeout(self) -> float | None:
        """When `handle_timeout` should be called, in the seconds of `now`; None when nothing is pending."""
        found = self._deadlines.next()
        return None if found is None else found[0]

    def handle_timeout(self, now: float) -> Effects:
        """Fire the timers that are due, of at most PEERS_AT_ONCE peers; `next_timeout` is past while more are due."""
        effects = Effects()
        self._fire(now, effects)
        return effects

    def _fire(self, now: float, effects: Effects) -> None:
        for _ in range(PEERS_AT_ONCE):
            if (found := self._deadlines.next()) is None or found[0] > now:
                return
            found[1].handle_timeout(now, effects)

    # Configuration and status.

    def configure(self, change: DeviceChange, now: float) -> Effects:
        """Apply a change (kernel netlink.c, wg_set_device). Raises ConfigError, and nothing is changed then.

        A peer with our own public key is left out without an error; a private key that matches a peer removes the peer.
        Handshakes that the change calls for begin at once with the first PEERS_AT_ONCE peers, and with the others as
        their timers fire.
        """
        expect("change", change, DeviceChange)
        change.check([*self._peers, *self._foreign])
        for peer_change in change.peers:
            if not 0 <= (peer_change.worker or 0) < self.share.count:
                raise ConfigError(f"worker {peer_change.worker} is not one of {self.share.count}, counted from 0")
        effects = Effects()
        if change.listen_port is not None:
            self.listen_port = change.listen_port
            self.forget_sources()
        if change.fwmark is not None:
            self.fwmark = change.fwmark
            self.forget_sources()
        if change.replace_peers:
            for public_key in [*self._peers, *self._foreign]:
                self._remove_peer(public_key)
        if change.private_key is not None and change.private_key != (self._private_key or bytes(32)):
            self._set_private_key(change.private_key, now, effects)
        for peer_change in change.peers:
            self._configure_peer(peer_change, now, effects)
        return effects

    def _set_private_key(self, private_key: PrivateKey, now: float, effects: Effects) -> None:
        if private_key.is_zero():
            self._private_key = self._interface.local = self._receiver.gate = None
        else:
            self._remove_peer(private_key.public_key)
            self._private_key = private_key
            self._interface.local = LocalStatic(private_key)
            self._receiver.gate = Gate(private_key.public_key, self._interface.random)
        for peer in self._peers.values():
            peer.private_key_changed()
            if self._interface.is_up and peer.timers.persistent_keepalive:
                peer.timers.persistent_keepalive_wanted(now)
            elif self._interface.is_up:
                peer.send_staged(now, effects)
            self._deadlines.note(peer)
        for foreign in self._foreign.values():
            foreign.identity_changed()
        self._fire(now, effects)

    def _configure_peer(self, change: PeerChange, now: float, effects: Effects) -> None:
        if change.remove:
            self._remove_peer(change.public_key)
            return
        peer = self._found(change.public_key)
        if peer is None and (
            change.update_only or (self._private_key and change.public_key == self._private_key.public_key)
        ):
            return
        if peer is None or (change.worker is not None and change.worker != self._worker_of(peer)):
            peer = self._place(change.public_key, peer, self.share.number if change.worker is None else change.worker)
        if change.replace_allowed_ips:
            self._allowed_ips.remove_owner(peer)
        for allowed_ip in change.allowed_ips:
            if allowed_ip.remove:
                self._allowed_ips.remove(allowed_ip.network, peer)
            else:
                self._allowed_ips.insert(allowed_ip.network, peer)
        if isinstance(peer, Foreign):
            return
        peer.configure(change, now, effects)
        self._resume(peer, now)
        if len(effects.transmits) < PEERS_AT_ONCE:
            peer.handle_timeout(now, effects)  # else it is due, and done by the next calls of handle_timeout
        self._deadlines.note(peer)

    def _found(self, public_key: PublicKey) -> Peer | Foreign | None:
        return self._peers.get(public_key) or self._foreign.get(public_key)

    def _worker_of(self, peer: Peer | Foreign) -> int:
        return peer.worker if isinstance(peer, Foreign) else self.share.number

    def _place(self, public_key: PublicKey, before: Peer | Foreign | None, worker: int) -> Peer | Foreign:
        """Make a peer that `worker` serves; of the one `before` that another worker served, the allowed IPs stay."""
        placed: Peer | Foreign
        if worker == self.share.number:
            placed = self._peers[public_key] = Peer(self._interface, self._indices, public_key)
            self._foreign.pop(public_key, None)
            if self._interface.is_up:
                placed.timers.start()
        else:
            placed = self._foreign[public_key] = Foreign(public_key, worker)
            self._peers.pop(public_key, None)
        if before is not None:
            self._allowed_ips.change_owner(before, placed)
        if isinstance(before, Peer):
            before.stop()
        return placed

    def _remove_peer(self, public_key: PublicKey) -> None:
        peer = self._found(public_key)
        if peer is None:
            return
        self._allowed_ips.remove_owner(peer)
        if isinstance(peer, Foreign):
            del self._foreign[public_key]
        else:
            del self._peers[public_key]
            peer.stop()

    def status(self) -> DeviceStatus:
        """The configuration and the counters, as `wg show` prints them; private and preshared keys included."""
        return DeviceStatus(
            private_key=self._private_key,
            public_key=self.public_key,
            listen_port=self.listen_port,
            fwmark=self.fwmark,
            peers=tuple(peer.status(self._allowed_ips.networks(peer)) for peer in self._peers.values()),
            drops={reason.value: n for reason, n in self._drops.items() if n},
            handed_over=self._interface.handed_over,
        )
