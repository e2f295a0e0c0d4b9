"""What an arriving segment is to a connection, before anything of it is taken in (RFC 9293, 3.10.7.4; RFC 5961).

Nothing changes here: the connection does what the verdict says.
"""

from __future__ import annotations

from enum import Enum, auto
from errno import ECONNREFUSED, ECONNRESET, EPIPE

from wgpy.stack.failures import failure
from wgpy.stack.tcp.framing import Framing
from wgpy.stack.tcp.header import ACK, PSH, RST, SYN, Options, Segment
from wgpy.stack.tcp.receiving import Receiver
from wgpy.stack.tcp.sending import Sender
from wgpy.stack.tcp.state import State


class Verdict(Enum):
    """What is to be done with a segment."""

    TAKE = auto()
    """It is in the window and has an acknowledgement."""
    RESET = auto()
    """The peer ends the connection, with exactly the number that it must have (RFC 5961, 3.2)."""
    CHALLENGE = auto()
    """It may be forged: have the peer show what it means (RFC 5961, 3.2 and 4.2)."""
    REFUSE = auto()
    """It is outside of the window: the peer is to be told where we are."""
    STALE = auto()
    """It is older than one that has come (RFC 7323, 5.3): the peer is told the same."""
    IGNORE = auto()


def is_expected(segment: Segment, framing: Framing, sender: Sender, receiver: Receiver) -> bool:
    """Whether it is the next data, or the acknowledgement of all that has left, of a connection that is established.

    Nearly every segment of a request or its answer is no more, and the way of all others is long: this is header
    prediction (tcp_input.c, tcp_rcv_established).
    """
    return (
        segment.flags & ~PSH == ACK
        and not segment.has_congestion_mark
        and bool(segment.payload or sender.next > sender.acknowledged)
        and receiver.fin_at is None
        and sender.is_calm
        and framing.expects(segment, receiver.next, sender.next)
    )


def judge(
    segment: Segment, options: Options, start: int, length: int, framing: Framing, receiver: Receiver, now: float
) -> Verdict:
    """Look at a segment that takes `length` sequence numbers from the peer's offset `start` on."""
    flags = segment.flags
    if not flags & RST:
        if framing.has_stamps and options.timestamp is None:  # RFC 7323, 3.2
            return Verdict.IGNORE
        if framing.is_stale(options, now):
            return Verdict.STALE
    if not receiver.accepts(start, length):
        return Verdict.IGNORE if flags & RST else Verdict.REFUSE
    if flags & RST:
        return Verdict.RESET if start == receiver.next else Verdict.CHALLENGE
    if flags & SYN:
        return Verdict.CHALLENGE
    return Verdict.TAKE if flags & ACK else Verdict.IGNORE


def error_of_reset(state: State, *, is_passive: bool) -> OSError | None:
    """What the application is told of a reset in this state (tcp_input.c, tcp_reset); None: both sides had closed."""
    match state:
        case State.TIME_WAIT | State.LAST_ACK | State.CLOSING:
            return None
        case State.CLOSE_WAIT:
            return failure(EPIPE)
        case State.SYN_RECEIVED if not is_passive:
            return failure(ECONNREFUSED)
        case _:
            return failure(ECONNRESET)


def begins_another(segment: Segment, framing: Framing, receiver: Receiver) -> bool:
    """Whether a SYN begins another connection of the same names, while this one only waits (RFC 6191)."""
    if segment.flags & (SYN | ACK | RST) != SYN:
        return False
    return framing.is_newer(segment.number, Options.parse(segment.options), receiver.next)
