"""The sessions with one peer, and how they take one another's place (kernel noise.c, struct noise_keypairs)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from wgpy.constants import REJECT_AFTER_TIME, ZERO_KEY_MATERIAL_AFTER
from wgpy.device.keypair import Keypair

# Sessions kept for what the peer still sends under them. When both ends begin at once there are two new ones, and the
# peer may have been using either of the two before.
MAX_OLDER: Final = 3


class Keypairs:
    """Every session with a peer. `free_index` is called with the local index of each session that is forgotten."""

    __slots__ = ("_free_index", "current", "next", "older")

    def __init__(self, free_index: Callable[[int], None]) -> None:
        self._free_index = free_index
        self.current: Keypair | None = None  # what we send under
        self.next: Keypair | None = None  # a responder's, until the initiator's first packet confirms it
        self.older: list[Keypair] = []  # what the peer may still send under, the newest first

    def __iter__(self) -> Iterator[Keypair]:
        """Every session there is, beginning with the one we send under, if there is one."""
        return (keypair for keypair in (self.current, self.next, *self.older) if keypair)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def begin(self, keypair: Keypair, now: float) -> None:
        """Take in a new session: an initiator uses it at once, a responder when the peer has shown that it does."""
        if keypair.is_initiator:
            self.use(keypair, now)
            return
        if self.next is not None:
            self._free_index(self.next.local_index)
        self.next = keypair

    def use(self, keypair: Keypair, now: float) -> None:
        """Send under `keypair` from now on, and keep those before it that the peer may still send under.

        The kernel keeps one. After handshakes that crossed, each end sends under its own, so more are needed.
        """
        before = [each for each in (self.next, self.current, *self.older) if each and each is not keypair]
        self.older = [each for each in before[:MAX_OLDER] if now - each.created_at < REJECT_AFTER_TIME]
        self.current, self.next = keypair, None
        for each in before:
            if each not in self.older:
                self._free_index(each.local_index)

    def stop_sending(self) -> None:
        """Send nothing more under the sessions there are; what the peer has sent under them may still arrive."""
        for keypair in (self.current, self.next):
            if keypair is not None:
                keypair.sending_valid = False

    def erase_expired(self, now: float) -> bool:
        """Forget each session at its own age, where the kernel waits for the newest. Whether any was forgotten."""
        expired = [keypair for keypair in self if keypair.created_at + ZERO_KEY_MATERIAL_AFTER <= now]
        self._forget(expired)
        return bool(expired)

    def erase(self) -> None:
        """Forget every session (paper, 6.3). Python frees the bytes; it cannot wipe them."""
        self._forget(list(self))

    def _forget(self, keypairs: list[Keypair]) -> None:
        self.current = None if self.current in keypairs else self.current
        self.next = None if self.next in keypairs else self.next
        self.older = [keypair for keypair in self.older if keypair not in keypairs]
        for keypair in keypairs:
            self._free_index(keypair.local_index)
