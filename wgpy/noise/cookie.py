"""mac1, mac2 and cookies: a sender shows that it knows us, and under load its address (paper, 5.3, 5.4.4, 5.4.7).

Goal: a flood of handshake messages must cost us less than the key exchanges that they ask for.

Threat: a sender that floods us, from its own address or with forged ones.

Properties: a sender that does not know our public key makes us compute no more than a hash (mac1). Under load, a
message is handled only if its sender has lately received a cookie at its address and port (mac2), so a rate limiter can
count by address. We keep no state per sender. Without our public key, an eavesdropper cannot decrypt a cookie.

Construction: a cookie is a mac of the source address under a secret that changes every two minutes. It is encrypted
under a key made from our public key, and bound to the mac1 that it answers.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from math import inf

from wgpy.constants import (
    COOKIE_NONCE_SIZE,
    COOKIE_SECRET_LATENCY,
    COOKIE_SECRET_MAX_AGE,
    MAC_SIZE,
    MESSAGE_COOKIE_REPLY,
)
from wgpy.errors import ProtocolError
from wgpy.keys import KEY_SIZE, PublicKey
from wgpy.noise.messages import COOKIE_REPLY, MACS_SIZE
from wgpy.noise.primitives import digest, mac, xseal, xunseal

_MAC1_LABEL = b"mac1----"
_COOKIE_LABEL = b"cookie--"


class CookieChecker:
    """The receiving side: checks macs that were made for our public key, and makes cookies.

    `source` is the sender's address (4 or 16 bytes) and port (2 bytes). `random(n)` returns n unpredictable
    bytes, for the nonce of each reply, and for a new secret when the last is over two minutes old.
    """

    def __init__(self, public: PublicKey) -> None:
        self._mac1_key = digest(_MAC1_LABEL, public)
        self._cookie_key = digest(_COOKIE_LABEL, public)
        self._secret = b""
        self._secret_made_at = -inf

    def verify_mac1(self, message: bytes | memoryview) -> bool:
        """Whether the sender of an initiation or response knows our public key."""
        mac1 = message[-MACS_SIZE:-MAC_SIZE]
        return compare_digest(mac(self._mac1_key, message[:-MACS_SIZE]), mac1)

    def verify_mac2(
        self, message: bytes | memoryview, source: bytes, now: float, random: Callable[[int], bytes]
    ) -> bool:
        """Whether the sender has the cookie that we give to `source`."""
        cookie = self._cookie(source, now, random)
        return compare_digest(mac(cookie, message[:-MAC_SIZE]), message[-MAC_SIZE:])

    def create_reply(
        self,
        message: bytes | memoryview,
        receiver_index: int,
        source: bytes,
        now: float,
        random: Callable[[int], bytes],
    ) -> bytes:
        """A cookie reply, 64 bytes, to the initiation or response `message`."""
        nonce = random(COOKIE_NONCE_SIZE)
        mac1 = bytes(message[-MACS_SIZE:-MAC_SIZE])
        sealed = xseal(self._cookie_key, nonce, self._cookie(source, now, random), mac1)
        return COOKIE_REPLY.pack(MESSAGE_COOKIE_REPLY, receiver_index, nonce, sealed)

    def _cookie(self, source: bytes, now: float, random: Callable[[int], bytes]) -> bytes:
        if now - self._secret_made_at > COOKIE_SECRET_MAX_AGE:
            self._secret, self._secret_made_at = random(KEY_SIZE), now
        return mac(self._secret, source)


class CookieStamp:
    """The sending side: puts mac1 on each handshake message to one peer, and mac2 while we hold its cookie."""

    def __init__(self, remote: PublicKey) -> None:
        self._mac1_key = digest(_MAC1_LABEL, remote)
        self._cookie_key = digest(_COOKIE_LABEL, remote)
        self._cookie = b""
        self._cookie_at = -inf
        self._unanswered_mac1: bytes | None = None

    def stamp(self, message: bytes, now: float) -> bytes:
        """The message with its two macs, 32 bytes; mac2 is zero unless we have a cookie that is still valid."""
        mac1 = mac(self._mac1_key, message)
        self._unanswered_mac1 = mac1
        stamped = message + mac1
        if now - self._cookie_at < COOKIE_SECRET_MAX_AGE - COOKIE_SECRET_LATENCY:
            return stamped + mac(self._cookie, stamped)
        return stamped + bytes(MAC_SIZE)

    def consume_reply(self, reply: bytes | memoryview, now: float) -> bool:
        """Keep the cookie of a reply to the last stamped message, once per message. False if it is not such a reply."""
        if self._unanswered_mac1 is None:
            return False
        _, _, nonce, sealed = COOKIE_REPLY.unpack(reply)
        try:
            self._cookie = xunseal(self._cookie_key, nonce, sealed, self._unanswered_mac1)
        except ProtocolError:
            return False
        self._cookie_at = now
        self._unanswered_mac1 = None
        return True
