"""The states of a connection."""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """RFC 9293, 3.3.2; listening is the host's."""

    SYN_SENT = "syn-sent"
    SYN_RECEIVED = "syn-received"
    ESTABLISHED = "established"
    FIN_WAIT_1 = "fin-wait-1"
    FIN_WAIT_2 = "fin-wait-2"
    CLOSE_WAIT = "close-wait"
    CLOSING = "closing"
    LAST_ACK = "last-ack"
    TIME_WAIT = "time-wait"
    CLOSED = "closed"


OPENING: Final = (State.SYN_SENT, State.SYN_RECEIVED)
RECEIVING: Final = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)
