"""What is known of the ways to other hosts: the longest packet that each takes (RFC 1191, RFC 8201)."""

from __future__ import annotations

from typing import Final

MAX_PATHS: Final = 1024
LASTS: Final = 600.0  # seconds until long packets are tried again (RFC 1191, 6.3)


class Paths:
    """The MTUs of paths, in bytes; `mtu` is that of those that nothing is known of."""

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu
        self._known: dict[bytes, tuple[int, float]] = {}

    def longest(self, destination: bytes, now: float) -> int:
        """The longest packet that the way to a destination is known to take."""
        known = self._known.get(destination)
        if known is None:
            return self.mtu
        mtu, until = known
        if now >= until:
            del self._known[destination]
            return self.mtu
        return min(mtu, self.mtu)

    def learn(self, destination: bytes, mtu: int, now: float) -> None:
        """A packet longer than `mtu` did not pass. A full memory forgets everything."""
        if mtu < self.longest(destination, now):
            if len(self._known) >= MAX_PATHS:
                self._known.clear()
            self._known[destination] = mtu, now + LASTS
