"""One session's transport keys: sealing and opening whole bursts in place (paper, 5.4.6).

Over a burst goes `map`, not a loop: what Python does for each packet beside the AEAD would cost half as much again. A
lone packet goes straight: to set the loop up takes as long as to seal it.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from itertools import repeat
from struct import Struct
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgpy.burst import Bodies, Burst, Datagrams, run_length
from wgpy.constants import (
    MESSAGE_TRANSPORT,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
    TAG_SIZE,
    TRANSPORT_HEADER_SIZE,
    TRANSPORT_OVERHEAD,
)
from wgpy.device.replay import ReplayWindow
from wgpy.noise.handshake import SessionKeys

MAX_RUN: Final = 64  # datagrams that are opened together

_header = Struct("<QQ").pack_into  # type with index, and counter
_type_and_index = Struct("<II").unpack_from
_counter = Struct("<8xQ").unpack_from
_nonce = Struct("<4xQ").pack
_exhaust = deque[Any](maxlen=0).extend


class Keypair:
    """The two keys of a session, its counters and its replay window (kernel noise.h, struct noise_keypair).

    `created_at` is seconds of CLOCK_BOOTTIME, so that time spent suspended counts towards a key's age.
    """

    __slots__ = (
        "created_at",
        "is_initiator",
        "local_index",
        "receiving",
        "remote_index",
        "replay",
        "send_counter",
        "sending",
        "sending_valid",
    )

    def __init__(self, keys: SessionKeys, now: float) -> None:
        self.local_index: int = keys.local_index
        self.remote_index: int = keys.remote_index
        self.is_initiator: bool = keys.is_initiator
        self.created_at: float = now
        self.sending: ChaCha20Poly1305 = ChaCha20Poly1305(keys.sending)
        self.receiving: ChaCha20Poly1305 = ChaCha20Poly1305(keys.receiving)
        self.sending_valid: bool = True
        self.send_counter: int = 0
        self.replay: ReplayWindow = ReplayWindow()

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
        view, lengths, first = burst.view, burst.lengths, self.send_counter
        self.send_counter = first + len(lengths)
        start = MESSAGE_TRANSPORT | self.remote_index << 32
        if len(lengths) == 1:
            plaintext = view[TRANSPORT_HEADER_SIZE:-TAG_SIZE]
            plaintext[lengths[0] :] = bytes(len(plaintext) - lengths[0])
            _header(view, 0, start, first)
            self.sending.encrypt_into(_nonce(first), plaintext, None, view[TRANSPORT_HEADER_SIZE:])
            return
        plaintexts, sealed = burst.bodies()
        if lengths[0] < len(plaintexts[0]) or lengths[-1] < len(plaintexts[-1]):
            for length, plaintext in zip(lengths, plaintexts, strict=True):
                plaintext[length:] = bytes(len(plaintext) - length)
        counters = range(first, first + len(lengths))
        _exhaust(map(_header, repeat(view), range(0, len(view), burst.stride), repeat(start), counters))
        _exhaust(map(self.sending.encrypt_into, map(_nonce, counters), plaintexts, repeat(None), sealed))

    def counters(self, datagrams: Datagrams, first: int) -> tuple[int, ...]:
        """Those of the datagrams under this key from `first`, which is one, up to one that is not; MAX_RUN at most."""
        view, stride = datagrams.view, datagrams.segment_size
        at = first * stride
        then = at + stride
        if len(view) < then + TRANSPORT_OVERHEAD or _type_and_index(view, at) != _type_and_index(view, then):
            return _counter(view, at)
        count = min((len(view) - at - TRANSPORT_OVERHEAD) // stride + 1, MAX_RUN)
        fields = _headers(stride, count).unpack_from(view, at)
        return fields[1::2][: run_length(fields[::2])]

    def open(self, counters: tuple[int, ...], bodies: Bodies) -> list[int]:
        """Open sealed bodies where they lie: the bytes of each plaintext, -1 where the tag is invalid.

        What an invalid one leaves in its slot must not be looked at.
        """
        plaintexts, sealed = bodies
        if len(counters) == 1:
            try:
                return [self.receiving.decrypt_into(_nonce(*counters), sealed[0], None, plaintexts[0])]
            except InvalidTag:
                return [-1]
        opening = map(self.receiving.decrypt_into, map(_nonce, counters), sealed, repeat(None), plaintexts)
        opened: list[int] = []
        while len(opened) < len(counters):
            try:
                opened.extend(opening)
            except InvalidTag:
                opened.append(-1)
        return opened


@lru_cache(maxsize=256)
def _headers(stride: int, count: int) -> Struct:
    """The headers of datagrams end to end: two numbers of each, type with index, and counter."""
    return Struct("<QQ" + f"{stride - TRANSPORT_HEADER_SIZE}xQQ" * (count - 1))
