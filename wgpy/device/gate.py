"""Refuses handshake messages cheaply, before any key exchange (paper, 5.3; kernel receive.c and cookie.c).

mac1 shows that the sender knows our public key. Under load, mac2 shows that the sender receives at its address, and a
sender without it gets a cookie to make one. Nothing is limited by an address before mac2 has proven it: anybody can
write a peer's address into a datagram, and would use up what that peer is allowed. The time that cookie replies take is
limited by the reader of the sockets, where strangers wait while data waits (net/schedule), and a reply is
shorter than the message it answers.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from wgpy.burst import Datagrams
from wgpy.constants import MAC_SIZE
from wgpy.device.effects import DropReason, Effects, Transmit
from wgpy.device.ratelimiter import RateLimiter
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey
from wgpy.noise.cookie import CookieChecker

_sender_index = Struct("<4xI").unpack_from
_NO_MAC2 = bytes(MAC_SIZE)
_RECEIVER_INDEX = slice(8, 12)  # of a response


class Gate:
    """Guards the key exchanges of our `public` key. `random(n)` returns n unpredictable bytes."""

    def __init__(self, public: PublicKey, random: Callable[[int], bytes]) -> None:
        self._checker = CookieChecker(public)
        self._random = random
        self._by_address = RateLimiter()  # proven by mac2
        self._by_handshake = RateLimiter()

    def refusal(
        self,
        message: memoryview,
        source: Endpoint,
        now: float,
        effects: Effects,
        under_load: bool,
        *,
        is_awaited: bool = False,
    ) -> DropReason | None:
        """Why an initiation or response is refused, or None; a cookie reply may be added to `effects`.

        `is_awaited` means that a response names the index of a handshake of ours. The index is random, so the sender
        has seen our initiation, and needs no cookie: otherwise a flood of strangers would keep us from completing it.
        But an eavesdropper has seen the index too, so their number is limited for each handshake; beyond that, a
        cookie is needed.
        """
        if not self._checker.verify_mac1(message):
            return DropReason.INVALID_MAC1
        if not under_load:
            return None
        has_mac2 = message[-MAC_SIZE:] != _NO_MAC2
        if has_mac2 and self._checker.verify_mac2(message, source.packed, now, self._random):
            return None if self._by_address.allow(source.address_bytes, now) else DropReason.RATE_LIMITED
        if is_awaited and self._by_handshake.allow(message[_RECEIVER_INDEX], now):
            return None
        reply = self._checker.create_reply(message, _sender_index(message)[0], source.packed, now, self._random)
        effects.transmits.append(Transmit(Datagrams.of(reply), source, 0, None))
        return DropReason.UNDER_LOAD
