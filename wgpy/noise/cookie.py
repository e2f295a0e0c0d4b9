"""mac1, mac2 and cookies: who speaks knows us and, under load, is where it says (paper, 5.3, 5.4.4, 5.4.7).

Goal: a flood of handshake messages must cost us less than the key exchanges they ask for.

Threat: a sender that forges source addresses, or one that floods from its own.

Properties: without our public key nobody makes us compute more than a hash (mac1). Under load, only who has lately
received a cookie at its address and port is heard (mac2), and a rate limiter can then hold that address to account.
We keep no state per sender. An eavesdropper cannot read a cookie, so it cannot use one up.

Construction: a cookie is a mac of the source under a secret that changes every two minutes; it travels encrypted to the
public key's holder and bound to the mac1 it answers.
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
    """The receiving side: checks macs made for our public key, and hands out cookies.

    `source` is the sender's address (4 or 16 bytes) and port (2 bytes). `random` is asked for a new secret when the
    last is over two minutes old at the time it is needed, and for the nonce of a reply.
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
        """Whether the sender holds the cookie we give to `source`."""
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
        """The message with its two macs; mac2 is zero without a cookie young enough to be still valid."""
        mac1 = mac(self._mac1_key, message)
        self._unanswered_mac1 = mac1
        stamped = message + mac1
        if now - self._cookie_at < COOKIE_SECRET_MAX_AGE - COOKIE_SECRET_LATENCY:
            return stamped + mac(self._cookie, stamped)
        return stamped + bytes(MAC_SIZE)

    def consume_reply(self, reply: bytes | memoryview, now: float) -> bool:
        """Keep the cookie of a reply to the message stamped last; one reply per message. False if it is not that."""
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
