"""One remote key: when to send it what, and what its timers do.

Sending comes first, in the order of the kernel's send.c: packets are staged; staged packets need a usable current
keypair; without one an initiation goes out, at most every five seconds; with one they are sealed, sent and counted, and
the key's age is checked. Then the messages of handshakes, which handshake.py makes, and the sessions that they begin,
which keypairs.py keeps; what each timer does when it fires (timers.c); and the life of a peer (peer.c).
"""

from __future__ import annotations

from collections import Counter, deque
from ipaddress import IPv4Network, IPv6Network
from math import inf

from wgpy.burst import Burst, Datagrams
from wgpy.constants import (
    HANDSHAKE_TRAFFIC_CLASS,
    INITIATION_SIZE,
    KEEPALIVE_TIMEOUT,
    MAX_HANDSHAKE_RETRIES,
    MAX_STAGED_PACKETS,
    MESSAGE_TRANSPORT,
    REJECT_AFTER_TIME,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME,
    REKEY_TIMEOUT,
    TRANSPORT_HEADER_SIZE,
    TRANSPORT_OVERHEAD,
)
from wgpy.device import ip
from wgpy.device.changes import PeerChange
from wgpy.device.effects import DropReason, Effects, Event, EventKind, Transmit
from wgpy.device.handshake import Handshake
from wgpy.device.indextable import IndexTable
from wgpy.device.interface import Interface
from wgpy.device.keypair import Keypair
from wgpy.device.keypairs import Keypairs
from wgpy.device.status import PeerStatus
from wgpy.device.timers import Timer, Timers
from wgpy.endpoint import Endpoint
from wgpy.errors import ProtocolError
from wgpy.keys import PublicKey
from wgpy.noise.cookie import CookieStamp
from wgpy.noise.handshake import (
    InitiationReceived,
    SessionKeys,
)

# An initiator with a key this old, still receiving, renews it once before it expires (kernel receive.c).
REKEY_AFTER_TIME_RECEIVING = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
LOST_AFTER = MAX_HANDSHAKE_RETRIES + 2  # so many initiations in a row without an answer are an event
REFUSAL_INTERVAL = REJECT_AFTER_TIME  # seconds, at least, between two events of refused initiations


class Peer:
    """One remote static key: its endpoint, handshake, keypairs, staged packets, timers and counters.

    `indices` is the device's table of indices, which leads from a datagram to a peer.
    """

    def __init__(self, interface: Interface, indices: IndexTable[Peer], public_key: PublicKey) -> None:
        self.interface = interface
        self.indices = indices
        self.public_key = public_key
        self.endpoint: Endpoint | None = None
        self.handshake: Handshake = Handshake(interface, public_key)
        self.keypairs: Keypairs = Keypairs(indices.remove)
        self.cookie_stamp: CookieStamp = CookieStamp(public_key)
        self.timers: Timers = Timers(interface.random)
        self.unanswered: int = 0  # how many initiations in a row
        self.is_refused: bool = False  # an event has said so, and no handshake has completed since
        self.refusal_told_at: float = -inf
        self.handshake_sent_at: float = -inf
        self.heard_at: float = -inf  # when the last data, keepalive or response came; an initiation may be a replay
        self.staged: deque[Burst] = deque()
        self.last_handshake_ns: int = 0
        self.tx_bytes: int = 0
        self.rx_bytes: int = 0
        self.drops: Counter[DropReason] = Counter()
        self.wakes_at = inf  # when Deadlines will look at the timers

    # Sending.

    def send(self, burst: Burst, now: float, effects: Effects) -> None:
        """Seal and send a burst, or stage its packets until there is a key."""
        current = self.keypairs.current
        if not self.staged and current is not None and current.can_send(len(burst.lengths), now):
            self._send_sealed(current, burst, now, effects)
            return
        # Make room first (kernel device.c, wg_xmit), so that a long burst does not push out its own first packets.
        while len(self.staged) > MAX_STAGED_PACKETS:
            self.staged.popleft()
            self.drops[DropReason.STAGED_OVERFLOW] += 1
        self.staged.extend(burst.singles())
        self.send_staged(now, effects)

    def has_sealed(self, payload: ip.Packet) -> bool:
        """Whether a UDP payload is one of our own datagrams to this peer, which would go round and grow for ever."""
        return self.keypairs.current is not None and self.keypairs.current.has_sealed(payload)

    def send_staged(self, now: float, effects: Effects) -> None:
        """Send the staged packets, or begin the handshake that they wait for."""
        if not self.staged:
            return
        current = self.keypairs.current
        if current is None or not current.can_send(len(self.staged), now):
            if current is not None:
                current.sending_valid = False
            self.initiate(now, effects)
            return
        while self.staged:
            self._send_sealed(current, self.staged.popleft(), now, effects)

    def send_keepalive(self, now: float, effects: Effects) -> None:
        """Send the staged packets or, if there are none, an empty packet."""
        if not self.staged:
            self.staged.append(Burst.of(b""))
        self.send_staged(now, effects)

    def _send_sealed(self, keypair: Keypair, burst: Burst, now: float, effects: Effects) -> None:
        view, is_data = burst.view, burst.lengths[0] != 0
        traffic_class = ip.outer_ecn(view, TRANSPORT_HEADER_SIZE) if is_data else 0
        keypair.seal(burst)
        self.timers.sent(now, data=is_data)
        self._transmit(Datagrams(view, burst.stride), traffic_class, effects)
        if keypair.send_counter > REKEY_AFTER_MESSAGES or (
            keypair.is_initiator and now - keypair.created_at >= REKEY_AFTER_TIME
        ):
            self.initiate(now, effects)

    def _transmit(self, datagrams: Datagrams, traffic_class: int, effects: Effects) -> None:
        if self.endpoint is None:
            self.drops[DropReason.NO_ENDPOINT] += len(datagrams)
            return
        self.tx_bytes += len(datagrams.view)
        effects.transmits.append(Transmit(datagrams, self.endpoint, traffic_class, self.public_key))

    def not_sent(self, datagrams: Datagrams, count: int, size: int, reason: DropReason) -> None:
        """Count datagrams that could not be sent as drops (kernel send.c, wg_packet_create_data_done)."""
        self.tx_bytes -= size
        self.drops[reason] += count
        if datagrams.view[0] == MESSAGE_TRANSPORT and len(datagrams.view) > TRANSPORT_OVERHEAD:
            self.timers.data_not_sent()

    # Receiving.

    def note_received(self, keypair: Keypair, source: Endpoint, now: float, data: int, effects: Effects) -> None:
        """After something authentic has come under `keypair`, of which `data` datagrams were no keepalives.

        A key that would expire soon though we only receive is renewed, once.
        """
        if source is not self.endpoint:
            self.move_endpoint(source, effects)
        if keypair is self.keypairs.next:
            self.confirm_keypair(keypair, now, effects)
        self.heard_at = now
        current, timers = self.keypairs.current, self.timers
        if (
            current is not None
            and now - current.created_at >= REKEY_AFTER_TIME_RECEIVING
            and current.is_initiator
            and current.sending_valid
            and not timers.sent_lastminute_handshake
        ):
            timers.sent_lastminute_handshake = True
            self.initiate(now, effects)
        timers.received(now, data=data)

    # The handshake.

    def initiate(self, now: float, effects: Effects, *, is_retry: bool = False) -> None:
        """Send an initiation, unless one or a response went out within REKEY_TIMEOUT."""
        if not is_retry:
            self.timers.handshake_attempts = 0
        if now - self.handshake_sent_at < REKEY_TIMEOUT or not self.interface.is_up:
            return
        if not self.handshake.is_possible:
            return
        if self.handshake.pending is not None:
            self._not_answered(effects)
        self.handshake_sent_at = now
        self._forget_initiation()
        index = self.indices.insert(self)
        self._send_handshake(self.handshake.create_initiation(index), now, effects)
        self.timers.handshake_initiated(now)

    def _not_answered(self, effects: Effects) -> None:
        """Note that the last initiation had no answer. Only the first and the LOST_AFTER-th in a row are events."""
        self.unanswered += 1
        effects.unanswered.append((self.public_key, self.endpoint))
        if self.unanswered == LOST_AFTER:
            effects.events.append(Event(EventKind.HANDSHAKE_ABANDONED, self.public_key, self.endpoint))
        elif self.unanswered == 1:
            effects.events.append(Event(EventKind.HANDSHAKE_UNANSWERED, self.public_key, self.endpoint))

    def _send_handshake(self, message: bytes, now: float, effects: Effects) -> None:
        stamped = self.cookie_stamp.stamp(message, now)
        self.timers.sent(now, data=False)
        self._transmit(Datagrams.of(stamped), HANDSHAKE_TRAFFIC_CLASS, effects)

    def consume_response(self, message: memoryview, source: Endpoint, now: float, effects: Effects) -> None:
        """Take the answer to our initiation, and confirm the new session with the staged packets or a keepalive.

        Raises ProtocolError, with nothing changed, when it does not belong to the pending initiation.
        """
        keys = self.handshake.consume_response(message)
        self.move_endpoint(source, effects)
        self._begin_session(keys, now)
        self.handshake_complete(now, effects)
        self.send_keepalive(now, effects)

    def answer_initiation(
        self, initiation: InitiationReceived, source: Endpoint, now: float, effects: Effects
    ) -> DropReason | None:
        """Answer an authenticated initiation and keep the session as the next one, or say why it is refused."""
        refusal = self.handshake.refusal(initiation, now)
        if refusal is not None:
            if initiation.timestamp != self.handshake.latest_timestamp:  # the network may deliver the last one twice
                self._tell_refusal(refusal, source, now, effects)
            return refusal
        index = self.indices.insert(self)
        try:
            message, keys = self.handshake.create_response(initiation, index, now)
        except ProtocolError:
            self.indices.remove(index)
            return DropReason.INVALID_HANDSHAKE
        self.move_endpoint(source, effects)
        self.rx_bytes += INITIATION_SIZE
        self.handshake_sent_at = now
        self._begin_session(keys, now)
        self._send_handshake(message, now, effects)
        self.timers.received(now, data=0)
        return None

    def _tell_refusal(self, reason: DropReason, source: Endpoint, now: float, effects: Effects) -> None:
        """Report it once until a handshake completes, and seldom: whoever recorded an initiation can replay it."""
        if not self.is_refused and now - self.refusal_told_at >= REFUSAL_INTERVAL:
            self.is_refused, self.refusal_told_at = True, now
            effects.events.append(Event(EventKind.HANDSHAKE_REFUSED, self.public_key, source, reason))

    def _begin_session(self, keys: SessionKeys, now: float) -> None:
        keypair = Keypair(keys, now)
        self.indices.establish(keypair)
        self.keypairs.begin(keypair, now)
        self._arm_erasure()

    def confirm_keypair(self, keypair: Keypair, now: float, effects: Effects) -> None:
        """After the first authenticated data under the next keypair: the initiator has it, so we use it."""
        self._forget_initiation()  # no longer needed; a late answer to it would change the session once more
        self.keypairs.use(keypair, now)
        self.handshake_complete(now, effects)
        self.send_staged(now, effects)

    def handshake_complete(self, now: float, effects: Effects) -> None:
        """The peer has proved that it has the new session's keys. Reports that, and whether it had been silent before.

        That is the only place where silence can end: after REJECT_AFTER_TIME without a packet, every session has
        expired, and the next packet needs a new one.
        """
        self.timers.handshake_complete()
        self.unanswered = 0
        self.is_refused = False
        self.last_handshake_ns = self.interface.wall_clock()
        effects.events.append(Event(EventKind.HANDSHAKE_COMPLETED, self.public_key, self.endpoint))
        if now - self.heard_at >= REJECT_AFTER_TIME:
            effects.events.append(Event(EventKind.PEER_HEARD, self.public_key, self.endpoint))
        self.heard_at = now

    def move_endpoint(self, source: Endpoint, effects: Effects) -> None:
        """Roaming: an authenticated message came from `source`, so that is where the peer is (paper, 2.1)."""
        known = self.endpoint
        self.endpoint = source
        if known is not None and source != known and not source.same_remote(known):
            effects.events.append(Event(EventKind.ENDPOINT_MOVED, self.public_key, source))

    def forget_source(self) -> None:
        """Let the routes choose the local address and interface again."""
        if self.endpoint is not None:
            self.endpoint = self.endpoint.without_source()

    # Timers.

    def handle_timeout(self, now: float, effects: Effects) -> None:
        """Do what each timer that is due stands for (kernel timers.c, wg_expired_*)."""
        while (timer := self.timers.pop_due(now)) is not None:
            match timer:
                case Timer.RETRANSMIT_HANDSHAKE:
                    self._retransmit_handshake(now, effects)
                case Timer.SEND_KEEPALIVE:
                    self.send_keepalive(now, effects)
                    self.timers.keepalive_fired(now)
                case Timer.NEW_HANDSHAKE:
                    self.forget_source()
                    self.initiate(now, effects)
                case Timer.ZERO_KEY_MATERIAL:
                    self._erase_old_keys(now, effects)
                case Timer.PERSISTENT_KEEPALIVE:
                    if self.timers.persistent_keepalive:
                        self.send_keepalive(now, effects)

    def _retransmit_handshake(self, now: float, effects: Effects) -> None:
        if now - self.handshake_sent_at < REKEY_TIMEOUT:  # a response was sent meanwhile: give it as long
            self.timers.handshake_initiated(self.handshake_sent_at)
            return
        if self.timers.handshake_attempts > MAX_HANDSHAKE_RETRIES:
            self._forget_initiation()
            self._drop_staged(DropReason.HANDSHAKE_ABANDONED)
            self.timers.handshake_abandoned(now)
            self._not_answered(effects)
            return
        self.timers.handshake_attempts += 1
        self.forget_source()
        self.initiate(now, effects, is_retry=True)

    # Life.

    def start(self, now: float, effects: Effects) -> None:
        """The interface came up."""
        self.timers.start()
        self.handshake_sent_at = -inf
        if self.timers.persistent_keepalive:
            self.timers.persistent_keepalive_wanted(now)
        else:
            self.send_staged(now, effects)

    def resume(self, endpoint: Endpoint, began: float, at: float) -> None:
        """The process before this one had a session with the peer, which counts as heard when that `began`.

        A handshake begins at `at` unless the peer is heard by then; with `endpoint` if no other is known.
        """
        self.endpoint = self.endpoint or endpoint
        self.heard_at = max(self.heard_at, began)
        self.timers.new_handshake_at = min(self.timers.new_handshake_at, at)

    def stop(self) -> None:
        """The interface went down, or the peer is removed: forget keys, timers and staged packets."""
        self.timers.stop()
        self._drop_staged(DropReason.INTERFACE_DOWN)
        self.erase_keys()

    def configure(self, change: PeerChange, now: float, effects: Effects) -> None:
        """Apply a change, except allowed IPs, which the device keeps (kernel netlink.c, set_peer).

        If the peer is given another endpoint, an initiation is due at once, so that we learn whether it answers there.
        """
        if change.preshared_key is not None:
            self.handshake.preshared_key = None if change.preshared_key.is_zero() else change.preshared_key
        moved = False
        if change.endpoint is not None:
            moved = self.endpoint is not None and not change.endpoint.same_remote(self.endpoint)
            self.endpoint = change.endpoint
        turned_on = False
        if change.persistent_keepalive is not None:
            turned_on = not self.timers.persistent_keepalive and change.persistent_keepalive > 0
            self.timers.persistent_keepalive = change.persistent_keepalive
        if not self.interface.is_up:
            return
        if turned_on:
            self.timers.persistent_keepalive_wanted(now)
        if moved:
            self._forget_initiation()  # it was not sent there, so it does not count as unanswered
            self.handshake_sent_at = -inf
            self.timers.handshake_wanted(now)
        else:
            self.send_staged(now, effects)

    def private_key_changed(self) -> None:
        """Our private key changed: agree on new keys. Sessions under the old one still receive until they expire."""
        self.handshake.identity_changed()
        self._forget_initiation()
        self.keypairs.stop_sending()
        self.handshake_sent_at = -inf

    def erase_keys(self) -> None:
        """Forget the pending handshake and every session."""
        self._forget_initiation()
        self.keypairs.erase()

    def _erase_old_keys(self, now: float, effects: Effects) -> None:
        """Forget the sessions that are too old and, with the last of them, the pending handshake."""
        erased = self.keypairs.erase_expired(now)
        if self.keypairs:
            self._arm_erasure()
            return
        self._forget_initiation()
        if erased:
            effects.events.append(Event(EventKind.KEYS_ERASED, self.public_key, self.endpoint))

    def _arm_erasure(self) -> None:
        self.timers.session_derived(min(keypair.created_at for keypair in self.keypairs))

    def _forget_initiation(self) -> None:
        if (pending := self.handshake.pending) is not None:
            self.indices.remove(pending.local_index)
            self.handshake.pending = None

    def _drop_staged(self, reason: DropReason) -> None:
        self.drops[reason] += sum(1 for packet in self.staged if packet.lengths[0])
        self.staged.clear()

    def status(self, allowed_ips: tuple[IPv4Network | IPv6Network, ...]) -> PeerStatus:
        return PeerStatus(
            public_key=self.public_key,
            preshared_key=self.handshake.preshared_key,
            endpoint=self.endpoint,
            allowed_ips=allowed_ips,
            last_handshake_ns=self.last_handshake_ns,
            tx_bytes=self.tx_bytes,
            rx_bytes=self.rx_bytes,
            persistent_keepalive=self.timers.persistent_keepalive,
            drops={reason.value: count for reason, count in self.drops.items() if count},
        )
