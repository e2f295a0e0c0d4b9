"""What passes between a tunnel and its UDP port, whoever the port is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from wgpy.burst import Datagrams
from wgpy.endpoint import Endpoint, SenderChange


@dataclass(slots=True)
class Received:
    """Datagrams that were read together."""

    datagrams: Datagrams
    """They lie in a buffer that the next `receive` overwrites."""
    source: Endpoint
    """Who sent the first of them, and to which of our addresses."""
    ecn: int
    """The ECN field of these, 0 to 3."""
    under_load: bool = False
    """Whether so many handshake messages wait that initiators must show a cookie."""
    is_alone: bool = False
    """Whether most likely nothing waits behind it: if something does, the loop will call."""
    senders: Sequence[SenderChange] = ()
    """Where others' datagrams begin, if there are any."""


class SendResult(NamedTuple):
    """How a send went; by default, everything was sent."""

    remaining: Datagrams | None = None
    """What to send again once the socket is writable."""
    refused: int = 0
    """Datagrams that the system did not take."""
    refused_bytes: int = 0
    """The bytes in them."""
    source_stale: bool = False
    """Whether to forget the endpoint's local address: it no longer works, and the route's choice does."""


SENT: Final = SendResult()
"""What every send that went well returns."""
