"""The handshakes with one peer, ours and the peer's (kernel noise.c, struct noise_handshake).

It makes the messages and judges those that come; when to send them is the Peer's part.
"""

from __future__ import annotations

from math import inf

from wgpy.constants import INITIATION_INTERVAL
from wgpy.device.effects import DropReason
from wgpy.device.interface import Interface
from wgpy.errors import ProtocolError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.noise.handshake import (
    InitiationReceived,
    InitiationSent,
    LocalStatic,
    RemoteStatic,
    SessionKeys,
    create_initiation,
)
from wgpy.noise.tai64n import TIMESTAMP_STEP, tai64n


class Handshake:
    """The initiation that awaits its answer, if there is one, and what tells an old initiation of the peer's.

    The kernel and wireguard-go have one state for both: when both ends begin at once, each has then forgotten what the
    other answers. Here an initiation of ours stays pending while the peer's is answered, and either may complete.
    """

    def __init__(self, interface: Interface, public_key: PublicKey) -> None:
        self._interface = interface
        self._public_key = public_key
        self._remote: RemoteStatic | None = None
        self.preshared_key: PresharedKey | None = None
        self.pending: InitiationSent | None = None
        self.stamped_ns: int = interface.timestamp_floor  # who had this key before us may have stamped that
        self.latest_timestamp: bytes = bytes(12)
        self.initiation_consumed_at: float = -inf

    @property
    def remote(self) -> RemoteStatic:
        """The peer's static key and the secret shared with it.

        The secret is computed with the first message, and not when the peer is configured or our key changes: it takes
        40 µs, and there may be thousands of peers.
        """
        if self._remote is None:
            self._remote = RemoteStatic.of(self._interface.local, self._public_key)
        return self._remote

    @property
    def is_possible(self) -> bool:
        """Whether we have a private key, and the peer's is one with which a secret can be agreed."""
        return self._interface.local is not None and self.remote.ss is not None

    def identity_changed(self) -> None:
        """Our private key is another one."""
        self._remote = None

    def create_initiation(self, index: int) -> bytes:
        """An initiation, 116 bytes without its macs, which takes the place of a pending one; `is_possible`."""
        local = self._interface.local
        assert local is not None
        ephemeral = self._ephemeral(local)
        message, self.pending = create_initiation(local, self.remote, ephemeral, index, self._timestamp())
        return message

    def consume_response(self, message: memoryview) -> SessionKeys:
        """The session that the answer to our initiation yields; nothing is pending any more.

        Raises ProtocolError, with nothing changed, when it does not belong to the pending initiation.
        """
        local = self._interface.local
        if self.pending is None or local is None:
            raise ProtocolError("no initiation is pending")
        keys = self.pending.consume_response(message, local, self.preshared_key or bytes(32))
        self.pending = None  # and with it the ephemeral key, the chaining key and the hash
        return keys

    def refusal(self, initiation: InitiationReceived, now: float) -> DropReason | None:
        """Why an authenticated initiation is not answered, None if it is: a replay, or too soon after the last."""
        if initiation.timestamp <= self.latest_timestamp:
            return DropReason.REPLAYED_INITIATION
        if now - self.initiation_consumed_at < INITIATION_INTERVAL:
            return DropReason.INITIATION_FLOOD
        return None

    def create_response(self, initiation: InitiationReceived, index: int, now: float) -> tuple[bytes, SessionKeys]:
        """A response, 60 bytes without its macs, and its session. Raises ProtocolError, with nothing changed."""
        ephemeral = self._ephemeral(self._interface.local)
        message, keys = initiation.create_response(ephemeral, index, self.preshared_key or bytes(32))
        self.accept(initiation, now)
        return message, keys

    def accept(self, initiation: InitiationReceived, now: float) -> None:
        """Refuse this initiation and older ones from now on, and newer ones for INITIATION_INTERVAL."""
        self.latest_timestamp = initiation.timestamp
        self.initiation_consumed_at = now

    def _ephemeral(self, local: LocalStatic | None) -> PrivateKey:
        ephemeral = PrivateKey(self._interface.random(32))
        if self._interface.keylog is not None and local is not None:
            for label, key in (
                ("LOCAL_STATIC_PRIVATE_KEY", local.private),
                ("REMOTE_STATIC_PUBLIC_KEY", self._public_key),
                ("LOCAL_EPHEMERAL_PRIVATE_KEY", ephemeral),
                ("PRESHARED_KEY", self.preshared_key or bytes(32)),
            ):
                self._interface.keylog(label, key)
        return ephemeral

    def _timestamp(self) -> bytes:
        """A TAI64N stamp that the peer finds newer than all before it, even if the wall clock was set back."""
        interface = self._interface
        self.stamped_ns = max(interface.wall_clock(), interface.timestamp_floor, self.stamped_ns + TIMESTAMP_STEP)
        interface.timestamp_floor = max(interface.timestamp_floor, self.stamped_ns)
        return tai64n(self.stamped_ns)
