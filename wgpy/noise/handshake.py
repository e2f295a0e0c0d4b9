"""Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as WireGuard uses it (paper, 5.4.2 to 5.4.5), in immutable states.

::

    initiator                                             responder
    create_initiation -> message, InitiationSent
                                                          open_initiation -> InitiationOpened: who says it is
                                                          .authenticate -> InitiationReceived: it is them
                                                          .create_response -> message, SessionKeys
    InitiationSent.consume_response -> SessionKeys

Each step is a method of the state that it needs, so steps cannot be called in a wrong order. A message that fails
raises ProtocolError and changes nothing. Messages are made and taken without their last 32 bytes, the two macs of
cookie.py. The token of the Noise pattern that a line carries out is written beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import Final, Self

from wgpy.constants import MESSAGE_INITIATION, MESSAGE_RESPONSE
from wgpy.errors import ProtocolError
from wgpy.keys import PrivateKey, PublicKey
from wgpy.noise.messages import INITIATION, RESPONSE
from wgpy.noise.primitives import dh, digest, kdf1, kdf2, kdf3, seal, unseal

CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_CHAINING_KEY: Final = digest(CONSTRUCTION)
_HASH: Final = digest(_CHAINING_KEY, IDENTIFIER)
_PACKED: Final = Struct("<12sI32s32s32s32s")  # an InitiationReceived
PACKED_SIZE: Final = _PACKED.size


@dataclass(frozen=True, slots=True)
class LocalStatic:
    """Our own static key."""

    private: PrivateKey

    @property
    def public(self) -> PublicKey:
        return self.private.public_key


@dataclass(frozen=True, slots=True)
class RemoteStatic:
    """A peer's static key, and `ss`, the secret of that and ours, which every handshake mixes in.

    `ss` is 32 bytes, or None if we have no private key, or the peer's is a low-order point.
    """

    public: PublicKey
    ss: bytes | None = field(repr=False)

    @classmethod
    def of(cls, local: LocalStatic | None, public: PublicKey) -> Self:
        try:
            return cls(public, dh(local.private, public) if local else None)
        except ProtocolError:
            return cls(public, None)


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """The result of a handshake (paper, 5.4.5): 32-byte keys, and the indices that name the session on the wire."""

    sending: bytes = field(repr=False)
    receiving: bytes = field(repr=False)
    local_index: int
    remote_index: int
    is_initiator: bool


def create_initiation(
    local: LocalStatic, remote: RemoteStatic, ephemeral: PrivateKey, sender_index: int, timestamp: bytes
) -> tuple[bytes, InitiationSent]:
    """The first message, 116 bytes, and the state that consumes its response.

    `timestamp` is 12 bytes of TAI64N. Raises ProtocolError when no secret can be agreed with `remote`.
    """
    ck, h = _CHAINING_KEY, digest(_HASH, remote.public)  # <- s, known beforehand
    h = digest(h, ephemeral.public_key)  # e
    ck = kdf1(ck, ephemeral.public_key)
    ck, key = kdf2(ck, dh(ephemeral, remote.public))  # es
    sealed_static = seal(key, local.public, h)  # s
    h = digest(h, sealed_static)
    ck, key = kdf2(ck, _agreed(remote))  # ss
    sealed_timestamp = seal(key, timestamp, h)
    h = digest(h, sealed_timestamp)
    message = INITIATION.pack(MESSAGE_INITIATION, sender_index, ephemeral.public_key, sealed_static, sealed_timestamp)
    return message, InitiationSent(sender_index, ephemeral, ck, h)


@dataclass(frozen=True, slots=True)
class InitiationSent:
    """The initiator waits for the response."""

    local_index: int
    _ephemeral: PrivateKey = field(repr=False)
    _chaining_key: bytes = field(repr=False)
    _hash: bytes = field(repr=False)

    def consume_response(self, message: bytes | memoryview, local: LocalStatic, preshared_key: bytes) -> SessionKeys:
        """The session keys. `preshared_key` is 32 bytes, all zero for none. Raises ProtocolError if it does not fit."""
        _, sender_index, receiver_index, ephemeral, sealed_nothing = RESPONSE.unpack_from(message)
        if receiver_index != self.local_index:
            raise ProtocolError("a response to another initiation")
        h = digest(self._hash, ephemeral)  # e
        ck = kdf1(self._chaining_key, ephemeral)
        ck = kdf1(ck, dh(self._ephemeral, ephemeral))  # ee
        ck = kdf1(ck, dh(local.private, ephemeral))  # se
        ck, tau, key = kdf3(ck, preshared_key)  # psk
        h = digest(h, tau)
        unseal(key, sealed_nothing, h)
        sending, receiving = kdf2(ck, b"")
        return SessionKeys(sending, receiving, self.local_index, sender_index, is_initiator=True)


def open_initiation(local: LocalStatic, message: bytes | memoryview) -> InitiationOpened:
    """Decrypt the static key of the sender of an initiation. Raises ProtocolError if it was not made for our key."""
    _, sender_index, ephemeral, sealed_static, sealed_timestamp = INITIATION.unpack_from(message)
    ck, h = _CHAINING_KEY, digest(_HASH, local.public)  # <- s, known beforehand
    h = digest(h, ephemeral)  # e
    ck = kdf1(ck, ephemeral)
    ck, key = kdf2(ck, dh(local.private, ephemeral))  # es
    static = PublicKey(unseal(key, sealed_static, h))  # s
    h = digest(h, sealed_static)
    return InitiationOpened(static, sender_index, ephemeral, sealed_timestamp, ck, h)


@dataclass(frozen=True, slots=True)
class InitiationOpened:
    """The responder knows who the initiator claims to be."""

    remote_public: PublicKey
    _remote_index: int
    _ephemeral: bytes
    _sealed_timestamp: bytes
    _chaining_key: bytes = field(repr=False)
    _hash: bytes = field(repr=False)

    def authenticate(self, remote: RemoteStatic) -> InitiationReceived:
        """Verify that the sender has the private key of `remote`. Raises ProtocolError if it has not."""
        ck, key = kdf2(self._chaining_key, _agreed(remote))  # ss
        timestamp = unseal(key, self._sealed_timestamp, self._hash)
        h = digest(self._hash, self._sealed_timestamp)
        return InitiationReceived(timestamp, self._remote_index, remote.public, self._ephemeral, ck, h)


@dataclass(frozen=True, slots=True)
class InitiationReceived:
    """The responder has an authentic initiation. The caller checks that its timestamp is new."""

    timestamp: bytes  # 12 bytes of TAI64N
    remote_index: int
    remote_public: PublicKey
    _ephemeral: bytes
    _chaining_key: bytes = field(repr=False)
    _hash: bytes = field(repr=False)

    def pack(self) -> bytes:
        """The state in PACKED_SIZE bytes, secrets included, for another process that goes on from here."""
        return _PACKED.pack(
            self.timestamp, self.remote_index, self.remote_public, self._ephemeral, self._chaining_key, self._hash
        )

    @classmethod
    def unpack(cls, packed: bytes | memoryview) -> Self:
        """The state that `pack` made into PACKED_SIZE bytes."""
        timestamp, index, public, ephemeral, chaining_key, h = _PACKED.unpack(packed)
        return cls(timestamp, index, PublicKey(public), ephemeral, chaining_key, h)

    def create_response(
        self, ephemeral: PrivateKey, sender_index: int, preshared_key: bytes
    ) -> tuple[bytes, SessionKeys]:
        """The second message, 60 bytes, and the session keys. Raises ProtocolError for low-order keys."""
        h = digest(self._hash, ephemeral.public_key)  # e
        ck = kdf1(self._chaining_key, ephemeral.public_key)
        ck = kdf1(ck, dh(ephemeral, self._ephemeral))  # ee
        ck = kdf1(ck, dh(ephemeral, self.remote_public))  # se
        ck, tau, key = kdf3(ck, preshared_key)  # psk
        h = digest(h, tau)
        sealed_nothing = seal(key, b"", h)
        message = RESPONSE.pack(MESSAGE_RESPONSE, sender_index, self.remote_index, ephemeral.public_key, sealed_nothing)
        receiving, sending = kdf2(ck, b"")
        return message, SessionKeys(sending, receiving, sender_index, self.remote_index, is_initiator=False)


def _agreed(remote: RemoteStatic) -> bytes:
    if remote.ss is None:
        raise ProtocolError("no secret can be agreed with this static key")
    return remote.ss
