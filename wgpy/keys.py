"""Curve25519 and preshared keys as values: 32 bytes, shown as base64 by `wg` and as hex by UAPI.

A secret's `repr` never shows it; only `base64()` and `hex()` do.
"""

from __future__ import annotations

import base64
import binascii
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

from wgpy.errors import KeyFormatError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

KEY_SIZE: Final = 32


class _Key(bytes):
    """32 bytes. Subclasses differ in meaning and in what `repr` may show."""

    def __new__(cls, key: bytes) -> Self:
        if not isinstance(key, bytes | bytearray | memoryview):
            raise TypeError(f"{cls.__name__} takes {KEY_SIZE} bytes; {cls.__name__}.from_base64 reads text")
        if len(key) != KEY_SIZE:
            raise KeyFormatError(f"a key is {KEY_SIZE} bytes, not {len(key)}")
        return super().__new__(cls, key)

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read the 44 characters `wg` prints. Raises KeyFormatError; a non-canonical last character is refused."""
        try:
            key = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(text) != 44 or len(key) != KEY_SIZE or base64.b64encode(key).decode() != text:
            raise KeyFormatError("a key is 44 base64 characters, as `wg genkey` prints it") from None
        return cls(key)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Read the 64 hexadecimal digits of UAPI. Raises KeyFormatError."""
        try:
            key = binascii.unhexlify(text)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_SIZE:
            raise KeyFormatError("a key is 64 hexadecimal digits") from None
        return cls(key)

    def base64(self) -> str:
        """The 44 characters that `wg` prints."""
        return base64.b64encode(self).decode()

    def is_zero(self) -> bool:
        """Whether all 32 bytes are zero, which stands for no key."""
        return not any(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    __str__ = __repr__


class PublicKey(_Key):
    """A peer's identity, on the wire and in configurations."""

    def __repr__(self) -> str:
        return f"PublicKey({self.base64()})"

    def __str__(self) -> str:
        return self.base64()

    def short(self) -> str:
        """A short form for log lines, as in wireguard-go: peer(abcd…wxyz)."""
        text = self.base64()
        return f"peer({text[:4]}…{text[39:43]})"


class PresharedKey(_Key):
    """The optional symmetric key of a pair of peers; all zero is none (paper, 5.2)."""

    @classmethod
    def generate(cls) -> Self:
        """A new random key, as `wgpy genpsk` makes one."""
        from secrets import token_bytes

        return cls(token_bytes(KEY_SIZE))


class PrivateKey(_Key):
    """A Curve25519 secret, stored clamped as the kernel stores it."""

    def __new__(cls, key: bytes) -> Self:
        if len(key) == KEY_SIZE and any(key):
            key = bytes([key[0] & 248]) + key[1:31] + bytes([key[31] & 127 | 64])
        return super().__new__(cls, key)

    @classmethod
    def generate(cls) -> Self:
        """A new random key, as `wgpy genkey` makes one."""
        from secrets import token_bytes

        return cls(token_bytes(KEY_SIZE))

    @cached_property
    def x25519(self) -> X25519PrivateKey:
        """This key as an object of `cryptography`, made once: making one costs more than a key exchange."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return X25519PrivateKey.from_private_bytes(self)

    @cached_property
    def public_key(self) -> PublicKey:
        """The public half, by which peers know the holder of this key."""
        return PublicKey(self.x25519.public_key().public_bytes_raw())
