"""Which handshake messages are handled: cheap refusals first (paper, 5.3; kernel receive.c and cookie.c).

mac1 shows that the sender knows our public key; under load mac2 shows that it receives at its address, and who does not
show that gets a cookie to do so with. Answers are what a flood would make us spend most on, so they are rationed.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from wgpy.burst import Datagrams
from wgpy.constants import MAC_SIZE
from wgpy.device.effects import DropReason, Effects, Transmit
from wgpy.device.load import LoadMeter
from wgpy.device.ratelimiter import RateLimiter
from wgpy.endpoint import Endpoint
from wgpy.keys import PublicKey
from wgpy.noise.cookie import CookieChecker

_sender_index = Struct("<4xI").unpack_from
_NO_MAC2 = bytes(MAC_SIZE)


class Gate:
    """What stands before the key exchanges of one public key. `random(n)` returns n unpredictable bytes."""

    def __init__(self, public: PublicKey, random: Callable[[int], bytes]) -> None:
        self._checker = CookieChecker(public)
        self._random = random
        self._load = LoadMeter()
        self._handshakes = RateLimiter()
        self._cookies = RateLimiter()

    def refusal(self, message: memoryview, source: Endpoint, now: float, effects: Effects) -> DropReason | None:
        """Why an initiation or response goes no further, None if it does; `effects` may take up a cookie reply.

        A load refuses what follows in a burst that has been answered before any hashing, unless it shows a cookie: a
        sender begins one handshake at a time.
        """
        has_mac2 = message[-MAC_SIZE:] != _NO_MAC2
        is_answered = bool(effects.transmits) and self._load.is_present(now)
        if is_answered and not has_mac2:
            return DropReason.RATE_LIMITED
        if not self._checker.verify_mac1(message):
            return DropReason.INVALID_MAC1
        if not self._load.arrived(now):
            return None
        if has_mac2 and self._checker.verify_mac2(message, source.packed, now, self._random):
            return None if self._handshakes.allow(source.address_bytes, now) else DropReason.RATE_LIMITED
        if is_answered or not self._cookies.allow(source.address_bytes, now):
            return DropReason.RATE_LIMITED
        reply = self._checker.create_reply(message, _sender_index(message)[0], source.packed, now, self._random)
        effects.transmits.append(Transmit(Datagrams.of(reply), source, 0, None))
        return DropReason.UNDER_LOAD
