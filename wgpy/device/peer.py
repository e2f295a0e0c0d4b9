"""One remote key: its handshake, its keypairs, its staged packets, its timers.

The sending half of the protocol, in the order of the kernel's send.c: packets are staged; staged packets need a usable
current keypair; without one an initiation goes out, at most every five seconds; with one they are sealed, sent and
counted, and the key's age is looked at. Then what the timers do when they fire, and how keypairs rotate (noise.c).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from math import inf

from wgpy.burst import Burst, Datagrams
from wgpy.constants import (
    HANDSHAKE_TRAFFIC_CLASS,
    INITIATION_INTERVAL,
    INITIATION_SIZE,
    KEEPALIVE_TIMEOUT,
    MAX_HANDSHAKE_RETRIES,
    MAX_STAGED_PACKETS,
    MESSAGE_TRANSPORT,
    REJECT_AFTER_TIME,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME,
    REKEY_TIMEOUT,
    TRANSPORT_OVERHEAD,
    ZERO_KEY_MATERIAL_AFTER,
)
from wgpy.device import ip
from wgpy.device.changes import PeerChange
from wgpy.device.effects import DropReason, Effects, Event, EventKind, Transmit
from wgpy.device.indextable import IndexTable
from wgpy.device.keypair import Keypair
from wgpy.device.status import PeerStatus
from wgpy.device.timers import Timer, Timers
from wgpy.endpoint import Endpoint
from wgpy.errors import ProtocolError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.noise.cookie import CookieStamp
from wgpy.noise.handshake import (
    InitiationReceived,
    InitiationSent,
    LocalStatic,
    RemoteStatic,
    SessionKeys,
    create_initiation,
)
from wgpy.noise.tai64n import TIMESTAMP_STEP, tai64n

# An initiator with a key this old, still receiving, renews it once before it expires (kernel receive.c).
REKEY_AFTER_TIME_RECEIVING = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
# Sessions kept for what the peer still sends under them. When both ends begin at once there are two new ones, and the
# peer may have been using either of the two before.
MAX_OLDER = 3
LOST_AFTER = MAX_HANDSHAKE_RETRIES + 2  # initiations in a row without an answer
REFUSAL_INTERVAL = REJECT_AFTER_TIME  # between two events of refused initiations


@dataclass(slots=True)
class Interface:
    """What all peers of one device share."""

    random: Callable[[int], bytes]
    wall_clock: Callable[[], int]  # nanoseconds since 1970
    keylog: Callable[[str, bytes], None] | None = None
    local: LocalStatic | None = None
    indices: IndexTable[Peer | Keypair] = field(default_factory=lambda: IndexTable())
    is_up: bool = False
    timestamp_floor: int = 0  # nanoseconds since 1970: no initiation bore a later time


class Peer:
    """The protocol state for one remote static key."""

    def __init__(self, interface: Interface, public_key: PublicKey) -> None:
        self.interface = interface
        self.public_key = public_key
        self.remote = RemoteStatic.of(interface.local, public_key)
        self.preshared_key: PresharedKey | None = None
        self.endpoint: Endpoint | None = None
        self.cookie_stamp = CookieStamp(public_key)
        self.timers = Timers(interface.random)
        self.handshake: InitiationSent | None = None
        self.current: Keypair | None = None  # what we send under
        self.next: Keypair | None = None  # a responder's, until the initiator's first packet confirms it
        self.older: list[Keypair] = []  # what the peer may still send under, the newest first
        self.stamped_ns = interface.timestamp_floor  # who had this key before us may have stamped that
        self.latest_timestamp = bytes(12)
        self.initiation_consumed_at = -inf
        self.unanswered = 0  # initiations in a row
        self.is_refused = False  # told, and no handshake has completed since
        self.refusal_told_at = -inf
        self.handshake_sent_at = -inf
        self.staged: deque[Burst] = deque()
        self.last_handshake_ns = 0
        self.tx_bytes = 0
        self.rx_bytes = 0
        self.drops: Counter[DropReason] = Counter()
        self.wakes_at = inf  # the device's business: when it will look at the timers

    # Sending.

    def send(self, burst: Burst, now: float, effects: Effects) -> None:
        """Seal and send a burst, or keep its packets until there is a key."""
        current = self.current
        if not self.staged and current is not None and current.can_send(len(burst.lengths), now):
            self._send_sealed(current, burst, now, effects)
            return
        # Room is made first (kernel device.c, wg_xmit), so that a long burst does not lose its own head.
        while len(self.staged) > MAX_STAGED_PACKETS:
            self.staged.popleft()
            self.drops[DropReason.STAGED_OVERFLOW] += 1
        self.staged.extend(burst.apart())
        self.send_staged(now, effects)

    def has_sealed(self, packet: ip.Packet) -> bool:
        """Whether a packet is a datagram of ours to this peer: it would go round and grow for ever."""
        payload = ip.udp_payload(packet)
        return payload is not None and self.current is not None and self.current.has_sealed(payload)

    def send_staged(self, now: float, effects: Effects) -> None:
        """Send what waits, or ask for the key it waits for."""
        if not self.staged:
            return
        current = self.current
        if current is None or not current.can_send(len(self.staged), now):
            if current is not None:
                current.sending_valid = False
            self.initiate(now, effects)
            return
        while self.staged:
            self._send_sealed(current, self.staged.popleft(), now, effects)

    def send_keepalive(self, now: float, effects: Effects) -> None:
        """Send what waits, or else an empty packet."""
        if not self.staged:
            self.staged.append(Burst.of(b""))
        self.send_staged(now, effects)

    def _send_sealed(self, keypair: Keypair, burst: Burst, now: float, effects: Effects) -> None:
        is_data = burst.lengths[0] != 0
        traffic_class = ip.outer_ecn(ip.ecn(burst.packet(0))) if is_data else 0
        keypair.seal(burst)
        self.timers.any_authenticated_packet_traversal(now)
        self.timers.any_authenticated_packet_sent()
        self._transmit(Datagrams(burst.view, burst.stride), traffic_class, effects)
        if is_data:
            self.timers.data_sent(now)
        self._keep_key_fresh_sending(now, effects)

    def _transmit(self, datagrams: Datagrams, traffic_class: int, effects: Effects) -> None:
        if self.endpoint is None:
            self.drops[DropReason.NO_ENDPOINT] += len(datagrams)
            return
        self.tx_bytes += len(datagrams.view)
        effects.transmits.append(Transmit(datagrams, self.endpoint, traffic_class, self.public_key))

    def not_sent(self, datagrams: Datagrams, count: int, size: int, reason: DropReason) -> None:
        """Some of what was just transmitted did not leave (kernel send.c, wg_packet_create_data_done)."""
        self.tx_bytes -= size
        self.drops[reason] += count
        if datagrams.view[0] == MESSAGE_TRANSPORT and len(datagrams.view) > TRANSPORT_OVERHEAD:
            self.timers.data_not_sent()

    def _keep_key_fresh_sending(self, now: float, effects: Effects) -> None:
        current = self.current
        if (
            current is not None
            and current.sending_valid
            and (
                current.send_counter > REKEY_AFTER_MESSAGES
                or (current.is_initiator and now - current.created_at >= REKEY_AFTER_TIME)
            )
        ):
            self.initiate(now, effects)

    def keep_key_fresh_receiving(self, now: float, effects: Effects) -> None:
        """After data was received: renew, once, a key that would soon expire while only receiving."""
        current = self.current
        if (
            current is not None
            and current.sending_valid
            and current.is_initiator
            and now - current.created_at >= REKEY_AFTER_TIME_RECEIVING
            and not self.timers.sent_lastminute_handshake
        ):
            self.timers.sent_lastminute_handshake = True
            self.initiate(now, effects)

    # The handshake.

    def initiate(self, now: float, effects: Effects, *, is_retry: bool = False) -> None:
        """Send an initiation, unless one or a response went out within REKEY_TIMEOUT."""
        if not is_retry:
            self.timers.handshake_attempts = 0
        if now - self.handshake_sent_at < REKEY_TIMEOUT or not self.interface.is_up:
            return
        local = self.interface.local
        if local is None or self.remote.ss is None:  # no identity, or a key with which no secret can be agreed
            return
        if self.handshake is not None:
            self._not_answered(effects)
        self.handshake_sent_at = now
        ephemeral = self._ephemeral(local)
        timestamp = self._timestamp()
        self._forget_handshake()
        index = self.interface.indices.insert(self, self.interface.random)
        message, self.handshake = create_initiation(local, self.remote, ephemeral, index, timestamp)
        self._send_handshake(message, now, effects)
        self.timers.handshake_initiated(now)

    def _not_answered(self, effects: Effects) -> None:
        """The last initiation got no answer, whatever asks for the next one. Only the first and the last are news."""
        self.unanswered += 1
        effects.unanswered.append((self.public_key, self.endpoint))
        if self.unanswered == LOST_AFTER:
            effects.events.append(Event(EventKind.HANDSHAKE_ABANDONED, self.public_key, self.endpoint))
        elif self.unanswered == 1:
            effects.events.append(Event(EventKind.HANDSHAKE_UNANSWERED, self.public_key, self.endpoint))

    def _ephemeral(self, local: LocalStatic | None) -> PrivateKey:
        ephemeral = PrivateKey(self.interface.random(32))
        if self.interface.keylog is not None and local is not None:
            for label, key in (
                ("LOCAL_STATIC_PRIVATE_KEY", local.private),
                ("REMOTE_STATIC_PUBLIC_KEY", self.public_key),
                ("LOCAL_EPHEMERAL_PRIVATE_KEY", ephemeral),
                ("PRESHARED_KEY", self.preshared_key or bytes(32)),
            ):
                self.interface.keylog(label, key)
        return ephemeral

    def _timestamp(self) -> bytes:
        """A TAI64N stamp that the peer finds newer than all before it, also when the wall clock was set back."""
        interface = self.interface
        self.stamped_ns = max(interface.wall_clock(), interface.timestamp_floor, self.stamped_ns + TIMESTAMP_STEP)
        interface.timestamp_floor = max(interface.timestamp_floor, self.stamped_ns)
        return tai64n(self.stamped_ns)

    def _send_handshake(self, message: bytes, now: float, effects: Effects) -> None:
        stamped = self.cookie_stamp.stamp(message, now)
        self.timers.any_authenticated_packet_traversal(now)
        self.timers.any_authenticated_packet_sent()
        self._transmit(Datagrams.of(stamped), HANDSHAKE_TRAFFIC_CLASS, effects)

    def consume_response(self, message: memoryview, source: Endpoint, now: float, effects: Effects) -> None:
        """The answer to our initiation: a session, at once confirmed by what waits or by a keepalive.

        Raises ProtocolError, with nothing changed, when it does not belong to the pending initiation.
        """
        local = self.interface.local
        if self.handshake is None or local is None:
            raise ProtocolError("no initiation is pending")
        keys = self.handshake.consume_response(message, local, self.preshared_key or bytes(32))
        self.move_endpoint(source, effects)
        self._begin_session(keys, now)
        self.handshake_complete(effects)
        self.send_keepalive(now, effects)

    def answer_initiation(
        self, initiation: InitiationReceived, source: Endpoint, now: float, effects: Effects
    ) -> DropReason | None:
        """An authenticated initiation: refuse a replay or a flood, else respond and hold the next keypair ready.

        An initiation of ours stays pending: either handshake may be the one that completes. The kernel forgets its own,
        and when both ends begin at once each has then forgotten what the other answers.
        """
        if initiation.timestamp <= self.latest_timestamp:
            if initiation.timestamp < self.latest_timestamp:  # the network may deliver the last one twice
                self._tell_refusal(DropReason.REPLAYED_INITIATION, source, now, effects)
            return DropReason.REPLAYED_INITIATION
        if now - self.initiation_consumed_at < INITIATION_INTERVAL:
            self._tell_refusal(DropReason.INITIATION_FLOOD, source, now, effects)
            return DropReason.INITIATION_FLOOD
        ephemeral = self._ephemeral(self.interface.local)
        index = self.interface.indices.insert(self, self.interface.random)
        try:
            message, keys = initiation.create_response(ephemeral, index, self.preshared_key or bytes(32))
        except ProtocolError:
            self.interface.indices.remove(index)
            return DropReason.INVALID_HANDSHAKE
        self.latest_timestamp = initiation.timestamp
        self.initiation_consumed_at = now
        self.move_endpoint(source, effects)
        self.rx_bytes += INITIATION_SIZE
        self.handshake_sent_at = now
        self._begin_session(keys, now)
        self._send_handshake(message, now, effects)
        self.timers.any_authenticated_packet_received()
        self.timers.any_authenticated_packet_traversal(now)
        return None

    def _tell_refusal(self, reason: DropReason, source: Endpoint, now: float, effects: Effects) -> None:
        """Once until a handshake completes, and not often: whoever has recorded an initiation can replay it."""
        if not self.is_refused and now - self.refusal_told_at >= REFUSAL_INTERVAL:
            self.is_refused, self.refusal_told_at = True, now
            effects.events.append(Event(EventKind.HANDSHAKE_REFUSED, self.public_key, source, reason))

    def _begin_session(self, keys: SessionKeys, now: float) -> None:
        keypair = Keypair(keys, self, now)
        self.interface.indices.replace(keypair.local_index, keypair)
        if keypair.is_initiator:
            self.handshake = None  # and with it the ephemeral key, the chaining key and the hash
            self._use(keypair, now)
        else:
            self._forget_keypairs(self.next)
            self.next = keypair
        self._arm_erasure()

    def _use(self, keypair: Keypair, now: float) -> None:
        """Send under `keypair` from now on, and keep those before it that the peer may still send under.

        The kernel keeps one. After handshakes that crossed, each end sends under its own, so more are needed.
        """
        before = [key for key in (self.next, self.current, *self.older) if key and key is not keypair]
        self.older = [key for key in before[:MAX_OLDER] if now - key.created_at < REJECT_AFTER_TIME]
        self._forget_keypairs(*(key for key in before if key not in self.older))
        self.current, self.next = keypair, None

    def confirm_keypair(self, keypair: Keypair, now: float, effects: Effects) -> None:
        """After authenticated data came under `keypair`: if it is the next one, the initiator has it, so we use it."""
        if keypair is not self.next:
            return
        self._forget_handshake()  # no answer to it is needed now, and one that comes late would change sessions again
        self._use(keypair, now)
        self.handshake_complete(effects)
        self.send_staged(now, effects)

    def handshake_complete(self, effects: Effects) -> None:
        self.timers.handshake_complete()
        self.unanswered = 0
        self.is_refused = False
        self.last_handshake_ns = self.interface.wall_clock()
        effects.events.append(Event(EventKind.HANDSHAKE_COMPLETED, self.public_key, self.endpoint))

    def move_endpoint(self, source: Endpoint, effects: Effects) -> None:
        """Roaming: an authenticated message came from `source`, so that is where the peer is (paper, 2.1)."""
        known = self.endpoint
        if source == known:
            return
        self.endpoint = source
        if known is not None and not source.same_remote(known):
            effects.events.append(Event(EventKind.ENDPOINT_MOVED, self.public_key, source))

    def forget_source(self) -> None:
        """Let the route decide again which local address and interface to send from."""
        if self.endpoint is not None:
            self.endpoint = self.endpoint.without_source()

    # Timers.

    def handle_timeout(self, now: float, effects: Effects) -> None:
        """Do what every timer that is due asks for."""
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
        if now - self.handshake_sent_at < REKEY_TIMEOUT:  # a response went out meanwhile: its time comes first
            self.timers.handshake_initiated(self.handshake_sent_at)
            return
        if self.timers.handshake_attempts > MAX_HANDSHAKE_RETRIES:
            self._forget_handshake()
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
            self.send_keepalive(now, effects)
        else:
            self.send_staged(now, effects)

    def greet(self, endpoint: Endpoint, at: float) -> None:
        """Begin a handshake then, unless the peer has been heard by that time; at `endpoint` if no other is known."""
        self.endpoint = self.endpoint or endpoint
        self.timers.new_handshake_at = min(self.timers.new_handshake_at, at)

    def stop(self) -> None:
        """The interface went down, or the peer is going: nothing pending, no keys, nothing staged."""
        self.timers.stop()
        self._drop_staged(DropReason.INTERFACE_DOWN)
        self.erase_keys()

    def configure(self, change: PeerChange, now: float, effects: Effects) -> None:
        """Take on what concerns this peer alone (kernel netlink.c, set_peer); its allowed IPs are the device's.

        A peer that is moved to another endpoint is greeted there at once, which tells whoever moves it if it is there.
        """
        if change.preshared_key is not None:
            self.preshared_key = None if change.preshared_key.is_zero() else change.preshared_key
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
        attempts = self.timers.handshake_attempts if self.timers.retransmit_handshake_at < inf else 0
        if moved:
            self._forget_handshake()  # it has not been unanswered there
            self.handshake_sent_at = -inf
            self.initiate(now, effects)
        if turned_on:
            self.send_keepalive(now, effects)
        self.send_staged(now, effects)
        if moved:  # a peer that is sought at one address after the other is still given up after so many attempts
            self.timers.handshake_attempts = attempts

    def private_key_changed(self) -> None:
        """Our identity changed: agree anew. What was sealed to the old one may still arrive, until it is too old."""
        self.remote = RemoteStatic.of(self.interface.local, self.public_key)
        self._forget_handshake()
        for keypair in (self.current, self.next):
            if keypair is not None:
                keypair.sending_valid = False
        self.handshake_sent_at = -inf

    def erase_keys(self) -> None:
        """Forget the pending handshake and every session (paper, 6.3). Python frees the bytes; it cannot wipe them."""
        self._forget_handshake()
        self._forget_keypairs(self.current, self.next, *self.older)
        self.current = self.next = None
        self.older = []

    def _erase_old_keys(self, now: float, effects: Effects) -> None:
        """Each session goes at its own age, where the kernel waits for the newest; with the last, what is pending."""
        expired = [key for key in self.keypairs() if key.created_at + ZERO_KEY_MATERIAL_AFTER <= now]
        if len(expired) < len(self.keypairs()):
            self._forget_keypairs(*expired)
            self.current = None if self.current in expired else self.current
            self.next = None if self.next in expired else self.next
            self.older = [key for key in self.older if key not in expired]
            self._arm_erasure()
        else:
            self.erase_keys()
            if expired:
                effects.events.append(Event(EventKind.KEYS_ERASED, self.public_key, self.endpoint))

    def keypairs(self) -> list[Keypair]:
        """Every session there is, the one we send under first if there is one."""
        return [key for key in (self.current, self.next, *self.older) if key]

    def _arm_erasure(self) -> None:
        self.timers.session_derived(min(keypair.created_at for keypair in self.keypairs()))

    def _forget_handshake(self) -> None:
        if self.handshake is not None:
            self.interface.indices.remove(self.handshake.local_index)
            self.handshake = None

    def _forget_keypairs(self, *keypairs: Keypair | None) -> None:
        for keypair in keypairs:
            if keypair is not None:
                self.interface.indices.remove(keypair.local_index)

    def _drop_staged(self, reason: DropReason) -> None:
        self.drops[reason] += sum(1 for packet in self.staged if packet.lengths[0])
        self.staged.clear()

    def status(self, allowed_ips: tuple[IPv4Network | IPv6Network, ...]) -> PeerStatus:
        return PeerStatus(
            public_key=self.public_key,
            preshared_key=self.preshared_key,
            endpoint=self.endpoint,
            allowed_ips=allowed_ips,
            last_handshake_ns=self.last_handshake_ns,
            tx_bytes=self.tx_bytes,
            rx_bytes=self.rx_bytes,
            persistent_keepalive=self.timers.persistent_keepalive,
            drops={reason.value: count for reason, count in self.drops.items() if count},
        )
