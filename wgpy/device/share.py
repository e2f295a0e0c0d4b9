"""A device's share of an interface whose peers are divided among several workers, each of which runs a Device.

All workers have the same private key and know every peer's allowed IPs, but each peer has its sessions in one worker.
The low bits of a receiver index say which worker drew it, so that the sockets' filter (net/queues) can sort datagrams
without knowing any session. What reaches a worker though it belongs to a peer of another one becomes a `Handover`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from wgpy.constants import MAX_WORKERS
from wgpy.device.handshake import Handshake
from wgpy.device.interface import Interface
from wgpy.errors import ConfigError
from wgpy.keys import PublicKey
from wgpy.noise.handshake import InitiationReceived, RemoteStatic

STALE_INTERVAL: Final = 1.0  # seconds, at least, between two replayed initiations of one peer that are handed over


@dataclass(frozen=True, slots=True)
class Share:
    """Worker `number` of `count`, counted from 0. The default is the only worker, which has all peers.

    Raises ConfigError unless 0 <= number < count <= MAX_WORKERS.
    """

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count <= MAX_WORKERS:
            raise ConfigError(f"worker {self.number} of {self.count}: there are 1 to {MAX_WORKERS}, counted from 0")

    @property
    def mask(self) -> int:
        """The bits of an index that hold the worker's number: as many as the highest number has."""
        return (1 << (self.count - 1).bit_length()) - 1

    def index(self, drawn: int) -> int:
        """An index of this worker's, made of a random number of 32 bits."""
        return drawn & ~self.mask | self.number


class Foreign:
    """A peer that another worker serves: who it is, and what it takes to know that an initiation is really its."""

    __slots__ = ("_handshake", "_stale_at", "public_key", "worker")

    endpoint: Final = None
    """None, as for a peer that cannot be sent to: `Device.send` then looks closer."""

    def __init__(self, public_key: PublicKey, worker: int) -> None:
        self.public_key: PublicKey = public_key
        self.worker: int = worker
        self._handshake: Handshake | None = None
        self._stale_at = -inf

    def remote(self, interface: Interface) -> RemoteStatic:
        """The peer's static key and the secret shared with it, which is computed when it is first asked for."""
        if self._handshake is None:
            self._handshake = Handshake(interface, self.public_key)
        return self._handshake.remote

    def identity_changed(self) -> None:
        """Our private key is another one."""
        self._handshake = None

    def admits(self, initiation: InitiationReceived, now: float) -> bool:
        """Whether to hand over an authenticated initiation; what was recorded and is replayed, only now and then.

        The owner refuses a replay, but counts it and may report it (`Peer.answer_initiation`).
        """
        assert self._handshake is not None  # the initiation was authenticated with `remote`
        if self._handshake.refusal(initiation, now) is None:
            self._handshake.accept(initiation, now)
            return True
        if now - self._stale_at < STALE_INTERVAL:
            return False
        self._stale_at = now
        return True
