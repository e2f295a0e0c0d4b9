"""One session's transport keys: sealing and opening whole bursts in place (paper, 5.4.6)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgpy.burst import Burst
from wgpy.constants import (
    MESSAGE_TRANSPORT,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
)
from wgpy.device.replay import ReplayWindow
from wgpy.noise.handshake import SessionKeys

if TYPE_CHECKING:
    from wgpy.device.peer import Peer

_header = Struct("<IIQ").pack_into
_type_and_index = Struct("<II").unpack_from
_nonce = Struct("<4xQ").pack


class Keypair:
    """The two keys of a session, its counters, its replay window, and whose it is.

    `created_at` is seconds of CLOCK_BOOTTIME, so that time spent suspended counts towards a key's age.
    """

    __slots__ = (
        "created_at",
        "is_initiator",
        "local_index",
        "peer",
        "receiving",
        "remote_index",
        "replay",
        "send_counter",
        "sending",
        "sending_valid",
    )

    def __init__(self, keys: SessionKeys, peer: Peer, now: float) -> None:
        self.peer = peer
        self.local_index = keys.local_index
        self.remote_index = keys.remote_index
        self.is_initiator = keys.is_initiator
        self.created_at = now
        self.sending = ChaCha20Poly1305(keys.sending)
        self.receiving = ChaCha20Poly1305(keys.receiving)
        self.sending_valid = True
        self.send_counter = 0
        self.replay = ReplayWindow()

    def can_send(self, count: int, now: float) -> bool:
        """Whether `count` more packets may be sealed: young enough, and none would use up the counters."""
        return (
            self.sending_valid
            and now - self.created_at < REJECT_AFTER_TIME
            and self.send_counter + count <= REJECT_AFTER_MESSAGES
        )

    def can_receive(self, now: float) -> bool:
        return now - self.created_at < REJECT_AFTER_TIME and self.replay.newest < REJECT_AFTER_MESSAGES

    def has_sealed(self, datagram: bytes | bytearray | memoryview) -> bool:
        """Whether it bears the peer's index of this session, a random number that nobody else puts there."""
        return len(datagram) >= 8 and _type_and_index(datagram) == (MESSAGE_TRANSPORT, self.remote_index)

    def seal(self, burst: Burst) -> None:
        """Turn each slot of the burst into a transport datagram.

        The padding between a packet and its slot's end is zeroed here, so nothing stale in the buffer is ever sent.
        """
        view, stride = burst.view, burst.stride
        remote_index, encrypt_into = self.remote_index, self.sending.encrypt_into
        counter = self.send_counter
        self.send_counter = counter + len(burst.lengths)
        start = 0
        for length, (plaintext, sealed) in zip(burst.lengths, burst.bodies(), strict=True):
            _header(view, start, MESSAGE_TRANSPORT, remote_index, counter)
            if length < len(plaintext):
                plaintext[length:] = bytes(len(plaintext) - length)
            encrypt_into(_nonce(counter), plaintext, None, sealed)
            counter += 1
            start += stride
