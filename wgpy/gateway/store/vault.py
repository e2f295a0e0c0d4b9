"""Secrets at rest: sealed with a key that is in a file of its own, so that a copy of the database reveals none.

ChaCha20-Poly1305 (RFC 8439) with a random nonce of 12 bytes before each sealed secret. What a secret is, such as
"preshared key of phone", is authenticated with it: a row's secret moved to another row does not open.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Column

from wgpy.daemon.files import read
from wgpy.errors import ConfigError
from wgpy.gateway.store.files import new

_SIZE, _NONCE = 32, 12  # bytes
_OTHERS: Final = 0o077


class Sealed(NamedTuple):
    """A column of sealed secrets, that of the names they belong to, and what a name's secret is."""

    column: Column[Any]
    name: Column[Any]
    what: Callable[[str], str]


class Vault:
    """Seals and opens secrets with a key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        self._cipher = ChaCha20Poly1305(key)

    @classmethod
    def read(cls, path: Path) -> Vault:
        """Read the key from its file. Raises ConfigError, also if others may read the file."""
        text, status = read(path)
        if status.st_mode & _OTHERS:
            raise ConfigError(f"{path}: other users may read this key: chmod 600 {path}")
        try:
            key = b64decode(text.strip(), validate=True)
        except ValueError:
            key = b""
        if len(key) != _SIZE:
            raise ConfigError(
                f"{path}: expected the gateway's key, {_SIZE} bytes in base64, as `wgpy gateway init` made it"
            )
        return cls(key)

    @classmethod
    def create(cls, path: Path) -> Vault:
        """Make a new key, in a new file with mode 0600. Raises ConfigError, also if there is a file already."""
        with cls.created(path) as vault:
            return vault

    @classmethod
    @contextmanager
    def created(cls, path: Path) -> Iterator[Vault]:
        """As `create`, but the file is removed again if the block raises."""
        key = os.urandom(_SIZE)
        with new(path, b64encode(key) + b"\n"):
            yield cls(key)

    def seal(self, what: str, secret: bytes) -> bytes:
        """Encrypt a secret; `what` says what it is."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, secret, what.encode())

    def open(self, what: str, sealed: bytes) -> bytes:
        """Decrypt a secret. Raises ConfigError if the key is another one, or the secret is not `what` it should be."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], what.encode())
        except InvalidTag:
            raise ConfigError(
                f"{what}: cannot be decrypted; the key file is not the one that this database was made with"
            ) from None
