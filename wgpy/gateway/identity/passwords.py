"""Passwords of local users: hashed by argon2id (RFC 9106), a few at a time."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from wgpy.errors import ControlError
from wgpy.gateway.store import credentials
from wgpy.gateway.store.database import Database

# Above OWASP's minimum of 19 MiB and 2 passes; 40 ms of a core of 2024. `python -m benchmarks.sign_in` measures it.
MEMORY: Final = 32 << 10  # KiB
PASSES: Final = 2
LANES: Final = 1  # more would hash one password on several cores, and answer no more people
SHORTEST: Final = 12  # characters; NIST SP 800-63B-4 asks for 15 where nothing else is proved, and 8 where something is
LONGEST: Final = 256  # characters
_FEWEST: Final = 5  # different characters
_AT_ONCE: Final = min(os.cpu_count() or 1, 8)  # more cores than that have other things to do
_WAITING: Final = 16  # requests that may wait for a core; more would not be answered in time


class Busy(ControlError):
    """More people want to sign in than can be answered. They may try again in a moment."""


class Hasher:
    """Hashes passwords, at most as many at once as there are cores, so that memory is bounded. Used from threads.

    `most` is how many threads are here at the same time: those that hash, and those that wait.
    """

    def __init__(self, at_once: int = _AT_ONCE, waiting: int = _WAITING) -> None:
        self.most: Final = at_once + waiting
        self._argon2 = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY, parallelism=LANES)
        self._running = BoundedSemaphore(at_once)
        self._admitted = BoundedSemaphore(self.most)

    def hash(self, password: str) -> str:
        """The hash of a password, with its parameters and salt, as text. Raises Busy."""
        with self._turn():
            return self._argon2.hash(_normal(password))

    def verify(self, encoded: str, password: str) -> bool:
        """Whether this is the password of a hash. An empty hash has none, and costs the same. Raises Busy."""
        with self._turn():
            if not encoded:
                self._argon2.hash(_normal(password))
                return False
            try:
                return self._argon2.verify(encoded, _normal(password))
            except (VerificationError, InvalidHashError):
                return False

    def is_outdated(self, encoded: str) -> bool:
        """Whether a hash was made with other parameters than are used now."""
        return self._argon2.check_needs_rehash(encoded)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._admitted.acquire(blocking=False):
            raise Busy("too many people are signing in at this moment; try again in a few seconds")
        try:
            with self._running:
                yield
        finally:
            self._admitted.release()


def check(database: Database, hasher: Hasher, user: str, password: str) -> bool:
    """Whether this is a local user's password. It is hashed once, whether there is such a user or not. Raises Busy.

    A hash with outdated parameters is replaced.
    """
    with database.read() as connection:
        found = credentials.find(connection, user)
    encoded = found.password if found else ""
    if not hasher.verify(encoded, password):
        return False
    if hasher.is_outdated(encoded):
        better = hasher.hash(password)
        with database.change(user) as change:
            credentials.rehash(change, user, encoded, better)
    return True


def refusal(user: str, password: str) -> str:
    """Why a user should not have this password, in a sentence; empty if it is good enough."""
    normal = unicodedata.normalize("NFC", password)
    if len(normal) < SHORTEST:
        return f"The password is too short: it needs {SHORTEST} characters. Several words make a good one."
    if len(normal) > LONGEST:
        return f"The password is too long: it may have {LONGEST} characters."
    if len(set(normal)) < _FEWEST:
        return f"The password is too easy to guess: it needs {_FEWEST} different characters."
    if user.partition("@")[0].casefold() in normal.casefold():
        return "The password is too easy to guess: it contains the user's name."
    return ""


def _normal(password: str) -> bytes:
    """The bytes that are hashed: keyboards write the same letter in several ways (RFC 8265, section 4.2)."""
    return unicodedata.normalize("NFC", password).encode(errors="surrogatepass")
