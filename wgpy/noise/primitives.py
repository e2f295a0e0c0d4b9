"""The functions the WireGuard paper defines in section 5.4: DH, AEAD, XAEAD, HASH, MAC, HMAC and KDF."""

from __future__ import annotations

from hashlib import blake2s
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgpy.constants import MAC_SIZE
from wgpy.errors import ProtocolError
from wgpy.keys import PrivateKey

_NONCE_ZERO: Final = bytes(12)  # every handshake key seals one message


def dh(private: PrivateKey, public: bytes) -> bytes:
    """The shared secret, 32 bytes. Raises ProtocolError for a low-order point, whose secret is zero (RFC 7748, 6.1)."""
    try:
        return private.x25519.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ProtocolError("a low-order public key") from error


def digest(*parts: bytes | memoryview) -> bytes:
    """BLAKE2s-256, 32 bytes, of the parts joined."""
    return blake2s(b"".join(parts)).digest()


def mac(key: bytes, message: bytes | memoryview) -> bytes:
    """Keyed BLAKE2s, 16 bytes long. `key` has up to 32 bytes."""
    return blake2s(message, digest_size=MAC_SIZE, key=key).digest()


_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def _hmac(key: bytes, message: bytes) -> bytes:
    """HMAC (RFC 2104) with a key of at most 64 bytes, in half the time of `hmac.digest`."""
    block = key.ljust(64, b"\0")
    return blake2s(block.translate(_OUTER) + blake2s(block.translate(_INNER) + message).digest()).digest()


def kdf1(key: bytes, material: bytes) -> bytes:
    """HKDF with HMAC-BLAKE2s (RFC 5869): one output of 32 bytes, with the chaining key as salt."""
    return _hmac(_hmac(key, material), b"\x01")


def kdf2(key: bytes, material: bytes) -> tuple[bytes, bytes]:
    secret = _hmac(key, material)
    first = _hmac(secret, b"\x01")
    return first, _hmac(secret, first + b"\x02")


def kdf3(key: bytes, material: bytes) -> tuple[bytes, bytes, bytes]:
    secret = _hmac(key, material)
    first = _hmac(secret, b"\x01")
    second = _hmac(secret, first + b"\x02")
    return first, second, _hmac(secret, second + b"\x03")


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """ChaCha20-Poly1305 (RFC 8439) under nonce zero: 16 bytes longer than the plaintext."""
    return ChaCha20Poly1305(key).encrypt(_NONCE_ZERO, plaintext, associated)


def unseal(key: bytes, ciphertext: bytes | memoryview, associated: bytes) -> bytes:
    """The plaintext of `seal`. Raises ProtocolError if the key, the ciphertext or the associated data differ."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE_ZERO, ciphertext, associated)
    except InvalidTag as error:
        raise ProtocolError("failed authentication") from error


def xseal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """XChaCha20-Poly1305 with its 24-byte nonce, for cookies: 16 bytes longer than the plaintext."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt  # rarely needed, and slow to import

    return crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, associated, nonce, key)


def xunseal(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """The plaintext of `xseal`. Raises ProtocolError as `unseal` does."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
    from nacl.exceptions import CryptoError

    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, associated, nonce, key)
    except CryptoError as error:
        raise ProtocolError("failed authentication") from error
