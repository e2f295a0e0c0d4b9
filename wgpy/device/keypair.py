"""One session's transport keys: sealing and opening whole bursts in place (paper, 5.4.6).

A burst is sealed by `map`, because a loop in Python would cost half as much again as the AEAD. For a lone packet,
setting up the `map` takes as long as sealing it: see straight.py.
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
    TRANSPORT_HEADER_SIZE,
    TRANSPORT_OVERHEAD,
)
from wgpy.device.replay import ReplayWindow
from wgpy.noise.handshake import SessionKeys

FIRST_LOOK: Final = 16
MAX_RUN: Final = 135  # datagrams whose headers are unpacked together: as many of an MTU of 1420 as a reader gathers

header = Struct("<QQ").pack_into  # type with index, and counter
_type_and_index = Struct("<II").unpack_from
_counter = Struct("<8xQ").unpack_from
nonce = Struct("<4xQ").pack
_exhaust = deque[Any](maxlen=0).extend


class Keypair:
    """The two keys of a session, its counters and its replay window (kernel noise.h, struct noise_keypair).

    `created_at` is in seconds of CLOCK_BOOTTIME, so that time spent suspended counts towards the age of the keys.
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
        "sending_header",
        "sending_valid",
    )

    def __init__(self, keys: SessionKeys, now: float) -> None:
        self.local_index: int = keys.local_index
        self.remote_index: int = keys.remote_index
        self.sending_header: int = MESSAGE_TRANSPORT | keys.remote_index << 32  # type and index, before the counter
        self.is_initiator: bool = keys.is_initiator
        self.created_at: float = now
        self.sending: ChaCha20Poly1305 = ChaCha20Poly1305(keys.sending)
        self.receiving: ChaCha20Poly1305 = ChaCha20Poly1305(keys.receiving)
        self.sending_valid: bool = True
        self.send_counter: int = 0
        self.replay: ReplayWindow = ReplayWindow()

    def can_send(self, count: int, now: float) -> bool:
        """Whether `count` more packets may be sealed: the key is young enough and has counters left (paper, 6.1)."""
        return (
            self.sending_valid
            and now - self.created_at < REJECT_AFTER_TIME
            and self.send_counter + count <= REJECT_AFTER_MESSAGES
        )

    def can_receive(self, now: float) -> bool:
        return now - self.created_at < REJECT_AFTER_TIME and self.replay.newest < REJECT_AFTER_MESSAGES

    def has_sealed(self, datagram: bytes | bytearray | memoryview) -> bool:
        """Whether it is a datagram of this session: it has the peer's index, which is random."""
        return len(datagram) >= 8 and _type_and_index(datagram) == (MESSAGE_TRANSPORT, self.remote_index)

    def seal(self, burst: Burst) -> None:
        """Turn each slot of the burst into a transport datagram, in place; there are counters left (`can_send`).

        The padding after each packet is zeroed, so that nothing is sent that an earlier packet left in the buffer.
        """
        view, lengths, first = burst.view, burst.lengths, self.send_counter
        self.send_counter = first + len(lengths)
        plaintexts, sealed = burst.bodies()
        if lengths.count(len(plaintexts[0])) < len(lengths):
            for length, plaintext in zip(lengths, plaintexts, strict=True):
                if padding := len(plaintext) - length:
                    plaintext[length:] = bytes(padding)
        counters = range(first, first + len(lengths))
        _exhaust(map(header, repeat(view), range(0, len(view), burst.stride), repeat(self.sending_header), counters))
        _exhaust(map(self.sending.encrypt_into, map(nonce, counters), plaintexts, repeat(None), sealed))

    def counters(self, datagrams: Datagrams, first: int, until: int) -> tuple[int, ...]:
        """The counters of the run of datagrams under this key that begins at `first`, which is one; MAX_RUN at most.

        It ends before datagram number `until`.
        """
        view, stride = datagrams.view, datagrams.segment_size
        at = first * stride
        then = at + stride
        if (
            until == first + 1
            or len(view) < then + TRANSPORT_OVERHEAD
            or _type_and_index(view, at) != _type_and_index(view, then)
        ):
            return _counter(view, at)
        count = min((len(view) - at - TRANSPORT_OVERHEAD) // stride + 1, until - first, MAX_RUN)
        # Where sessions alternate, not all headers are unpacked for each pair of datagrams.
        for some in (FIRST_LOOK, count) if count > FIRST_LOOK else (count,):
            fields = _headers(stride, some).unpack_from(view, at)
            length = run_length(fields[::2])
            if length < some:
                break
        return fields[1::2][:length]

    def open(self, counters: tuple[int, ...], bodies: Bodies) -> list[int]:
        """Open sealed bodies in place; returns the size of each plaintext in bytes, -1 for an invalid tag.

        The content of a slot whose tag was invalid must not be used.
        """
        plaintexts, sealed = bodies
        opening = map(self.receiving.decrypt_into, map(nonce, counters), sealed, repeat(None), plaintexts)
        opened: list[int] = []
        while len(opened) < len(counters):
            try:
                opened.extend(opening)
            except InvalidTag:
                opened.append(-1)
        return opened


@lru_cache(maxsize=256)
def _headers(stride: int, count: int) -> Struct:
    """Unpacks the headers of datagrams that lie end to end, two numbers each: type with index, and counter."""
    return Struct("<QQ" + f"{stride - TRANSPORT_HEADER_SIZE}xQQ" * (count - 1))
