"""An eavesdropper who checks that a wire shows no more than it must."""

from __future__ import annotations

from struct import unpack_from

from tests.support.world import Host, Seen
from wgpy.constants import (
    COOKIE_REPLY_SIZE,
    HANDSHAKE_TRAFFIC_CLASS,
    INITIATION_SIZE,
    MESSAGE_COOKIE_REPLY,
    MESSAGE_INITIATION,
    MESSAGE_RESPONSE,
    MESSAGE_TRANSPORT,
    RESPONSE_SIZE,
    TRANSPORT_OVERHEAD,
)

SIZES = {MESSAGE_INITIATION: INITIATION_SIZE, MESSAGE_RESPONSE: RESPONSE_SIZE, MESSAGE_COOKIE_REPLY: COOKIE_REPLY_SIZE}
RECEIVERS = {MESSAGE_RESPONSE: slice(8, 12), MESSAGE_COOKIE_REPLY: slice(4, 8)}
SECRET = b"attack at dawn, bring the red umbrella"


class Eve:
    """Sees every datagram as it is sent."""

    def __init__(self, hosts: list[Host]) -> None:
        self.statics = {bytes(host.public_key) for host in hosts}
        self.ephemerals: set[bytes] = set()
        self.indices: set[bytes] = set()
        self.drawn_again = 0
        self.counters: dict[int, int] = {}  # the latest, by the index of the session

    def look(self, seen: Seen) -> None:
        datagram = seen.datagram
        assert datagram[1:4] == bytes(3), "the reserved bytes are zero"
        assert SECRET[:8] not in datagram
        assert not any(static in datagram for static in self.statics), "identities are hidden"
        if seen.kind == MESSAGE_TRANSPORT:
            self.look_at_data(seen)
            return
        assert len(datagram) == SIZES.get(seen.kind), "handshake messages have lengths of their own"
        assert seen.traffic_class == (0 if seen.kind == MESSAGE_COOKIE_REPLY else HANDSHAKE_TRAFFIC_CLASS)
        if seen.kind in RECEIVERS:
            assert datagram[RECEIVERS[seen.kind]] in self.indices, "the receiver's index is one it has told"
        if seen.kind in (MESSAGE_INITIATION, MESSAGE_RESPONSE):
            start = 8 if seen.kind == MESSAGE_INITIATION else 12
            ephemeral, index = datagram[start : start + 32], datagram[4:8]
            assert ephemeral not in self.ephemerals, "ephemeral keys are fresh each time"
            self.ephemerals.add(ephemeral)
            self.look_at_index(index)

    def look_at_index(self, index: bytes) -> None:
        """An index has 32 random bits: in a long story one is drawn again, for another session, by mere chance."""
        if index in self.indices:
            self.drawn_again += 1
            self.counters.pop(int.from_bytes(index, "little"), None)
        self.indices.add(index)
        by_chance = len(self.indices) ** 2 / 2**33
        assert self.drawn_again <= 2 + 2 * by_chance, "indices are fresh each time"

    def look_at_data(self, seen: Seen) -> None:
        assert len(seen.datagram) % 16 == 0, "lengths are rounded"
        assert len(seen.datagram) >= TRANSPORT_OVERHEAD, "there is room for a header and a tag"
        assert seen.datagram[4:8] in self.indices, "the receiver's index is one it has told"
        assert seen.traffic_class < 4, "nothing of the inner traffic class but ECN"
        index, counter = unpack_from("<IQ", seen.datagram, 4)
        assert counter == self.counters.get(index, -1) + 1, "counters count, so a nonce is used once"
        self.counters[index] = counter
