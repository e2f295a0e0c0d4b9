"""One TCP connection: its states and what each segment does to them (RFC 9293, 3.10.7).

::

    connection.arrive(segment, now)      # what came from the peer
    connection.depart(most, now)         # what is to leave next; None: nothing
    connection.handle_timeout(now)       # at or after connection.deadline

Times are seconds. Offsets count each side's sequence numbers from its SYN, which is 0; they never wrap.
"""

from __future__ import annotations

from errno import ECONNREFUSED, ETIMEDOUT
from math import inf
from typing import Final

from wgpy.device.ip import ECT_0
from wgpy.stack.failures import failure
from wgpy.stack.memory import Budget
from wgpy.stack.tcp.acceptance import Verdict, begins_another, error_of_reset, is_expected, judge
from wgpy.stack.tcp.blackhole import BlackHole
from wgpy.stack.tcp.flights import Leaving
from wgpy.stack.tcp.framing import MAX_WINDOW, WINDOW_SCALE, Departure, Framing, Names
from wgpy.stack.tcp.header import ACK, CWR, ECE, FIN, PSH, RST, SYN, Options, Segment
from wgpy.stack.tcp.marks import Marks
from wgpy.stack.tcp.patience import Patience, Settings, retries
from wgpy.stack.tcp.receiving import Receiver
from wgpy.stack.tcp.sending import Sender
from wgpy.stack.tcp.state import OPENING, RECEIVING, State

TIME_WAIT: Final = 60.0  # seconds: the kernel's TCP_TIMEWAIT_LEN, and how long a closed side waits for the other's FIN
_CHALLENGE_EVERY: Final = 0.5  # seconds: tcp_invalid_ratelimit


class Connection:
    """Both halves of a connection, and its state. `error` tells why it was closed, if not by both sides."""

    __slots__ = (
        "_black_hole", "_challenged_at", "_end_at", "_is_abandoned", "_reset_number", "_syn_wanted", "_tail_probe",
        "_tries", "error", "framing", "is_passive", "key", "marks", "names", "patience", "receiver", "sender", "state",
        "wakes_at",
    )  # fmt: skip

    def __init__(
        self, names: Names, state: State, isn: int, stamp_offset: int, mtu: int, budget: Budget, settings: Settings
    ) -> None:
        """`isn` is our initial sequence number; `mtu` bytes are what the way to the peer takes."""
        self.names: Names = names
        self.key: bytes = names.key
        self.state: State = state
        self.patience: Patience = Patience(settings)
        self.is_passive: bool = state is State.SYN_RECEIVED
        self.error: OSError | None = None
        self.wakes_at: float = inf  # as its host has noted
        self.framing: Framing = Framing(names, isn, stamp_offset, mtu)
        self.sender: Sender = Sender(self.framing.longest)
        self.receiver: Receiver = Receiver(budget, self.framing.longest)
        self.marks: Marks = Marks()
        self._syn_wanted = True
        self._reset_number: int | None = None
        self._tail_probe: Leaving | None = None
        self._black_hole: BlackHole | None = None  # until a timeout raises the suspicion
        self._tries = 0
        self._challenged_at = -inf
        self._is_abandoned = False  # nobody reads any more
        self._end_at = inf

    # What the application does.

    def write(self, data: bytes) -> None:
        """Send these bytes after all that was written. What comes after `shutdown` is ignored."""
        if data and not self.sender.fin_wanted and self.state is not State.CLOSED:
            self.sender.write(data)

    def read(self) -> bytes:
        """The oldest bytes that have come and were not read; empty if there are none at present."""
        return self.receiver.read()

    @property
    def is_at_end(self) -> bool:
        """The peer has closed its side, and everything before that was read."""
        return self.receiver.is_finished and not self.receiver.unread

    def shutdown(self) -> None:
        """Close our side once all that was written has left."""
        if self.sender.fin_wanted or self.state in (State.CLOSED, State.TIME_WAIT):
            return
        self.sender.finish()
        if self.state is State.ESTABLISHED:
            self.state = State.FIN_WAIT_1
        elif self.state is State.CLOSE_WAIT:
            self.state = State.LAST_ACK

    def close(self, now: float) -> None:
        """Close our side, and read no more: what the peer still sends is refused (RFC 9293, 3.10.4; RFC 2525, 2.17)."""
        if self.state is State.SYN_SENT:
            self._end(None)
        elif self.receiver.unread and not self.receiver.is_finished:
            self.abort()
        else:
            self._is_abandoned = True
            self.shutdown()
            self.receiver.discard()
            if self.state is State.FIN_WAIT_2:
                self._end_at = now + TIME_WAIT

    def abort(self) -> None:
        """Reset the connection: what was not sent is lost."""
        if self.state not in (State.CLOSED, State.TIME_WAIT, State.SYN_SENT):
            self._reset_number = self.framing.number(self.sender.next)
        self._end(None)

    # From the peer.

    def arrive(self, segment: Segment, now: float) -> bool:
        """Take in a segment. False if it does not belong here, and was only answered, or ignored."""
        is_plain = self.state is State.ESTABLISHED and self._black_hole is None
        if is_plain and is_expected(segment, self.framing, self.sender, self.receiver):
            self._arrive_as_expected(segment, now)
            return True
        if self.state is State.CLOSED:
            return False
        options = Options.parse(segment.options)
        if self.state is State.SYN_SENT:
            return self._arrive_in_answer(segment, options, now)
        start = self.framing.their_offset(segment.number, self.receiver.next)
        length = len(segment.payload) + bool(segment.flags & FIN) + bool(segment.flags & SYN)
        match judge(segment, options, start, length, self.framing, self.receiver, now):
            case Verdict.TAKE:
                return self._arrive_acknowledged(segment, options, start, now)
            case Verdict.RESET:
                self._end(error_of_reset(self.state, is_passive=self.is_passive))
                return True
            case Verdict.CHALLENGE:
                self._challenge(now)
            case Verdict.STALE:
                self._refuse(start, length, now)
            case Verdict.REFUSE:
                if segment.flags & SYN and self.state is State.SYN_RECEIVED and start == 0:
                    self._syn_wanted = True  # our answer was lost
                else:
                    self._refuse(start, length, now)
                if self.state is State.TIME_WAIT:
                    self._end_at = now + TIME_WAIT
        return False

    def _arrive_as_expected(self, segment: Segment, now: float) -> None:
        """Do for a segment that is in order, and no more than that, what is done for any, in fewer steps."""
        framing, sender, receiver = self.framing, self.sender, self.receiver
        start, upto = receiver.next, sender.next
        self.patience.heard(now)
        framing.note_expected(segment.options, start, now)
        if sender.update_window(start, upto, segment.window << framing.scale):
            self.patience.persist_at = inf
        if upto > sender.acknowledged:
            self._tries, self.patience.fails_at = 0, inf
            sender.all_came(now)
        if segment.payload:
            receiver.take(start, segment.payload, is_last=False, now=now)

    def _arrive_acknowledged(self, segment: Segment, options: Options, start: int, now: float) -> bool:
        sender = self.sender
        upto = self.framing.offset(segment.acknowledgement, sender.acknowledged)
        if self.state is State.SYN_RECEIVED and not sender.acknowledged < upto <= sender.next:
            self._reset_number = segment.acknowledgement
            return False
        if upto > sender.next or upto < sender.acknowledged - sender.max_window:  # RFC 5961, 5.2
            self._challenge(now)
            return False
        self.patience.heard(now)
        self.framing.note_stamp(options, start, now)
        if self.state is State.SYN_RECEIVED:
            self._establish(now)
        window = segment.window << self.framing.scale
        is_duplicate = not segment.payload and not segment.flags & FIN and window == sender.window
        if upto >= sender.acknowledged:
            if upto > sender.acknowledged:
                self._tries, self.patience.fails_at = 0, inf
            sacks = self.framing.sacked(options, upto, sender.next)
            if sender.update_window(start, upto, window):
                self.patience.persist_at = inf
            echoed = self.framing.echoed(options, now)
            for _ in range(segment.packets if is_duplicate and not sender.has_sack else 1):
                sender.acknowledge(upto, sacks, now, is_duplicate=is_duplicate, echoed=echoed)
            if self._black_hole is not None and (mtu := self._black_hole.found(sender.acknowledged)) is not None:
                self.resize(mtu)
        if segment.has_congestion_mark or segment.flags & (ECE | CWR):
            if self.marks.arrived(segment.flags, is_marked=segment.has_congestion_mark) and sender.marked():
                self.marks.reduced()
            self.receiver.ack_now = self.receiver.ack_now or segment.has_congestion_mark
        if sender.fin_wanted:
            self._fin_acknowledged(now)
        if self.state in RECEIVING:
            self._take(segment, start, now)
        elif segment.flags & FIN:
            self.receiver.ack_now = True
        return True

    def _arrive_in_answer(self, segment: Segment, options: Options, now: float) -> bool:
        """In SYN-SENT (RFC 9293, 3.10.7.3)."""
        flags = segment.flags
        if flags & ACK and self.framing.offset(segment.acknowledgement, 0) != 1:
            if not flags & RST:  # an older connection of these ports lives on over there
                self._reset_number = segment.acknowledgement
                self._syn_wanted = True
            return False
        if flags & RST:
            if flags & ACK:
                self._end(failure(ECONNREFUSED))
            return bool(flags & ACK)
        if not flags & SYN:
            return False
        self.learn(segment, options, now)
        if flags & ACK:
            self.sender.acknowledge(1, [], now, is_duplicate=False)
            self._establish(now)
        else:  # both open at once
            self.state = State.SYN_RECEIVED
            self._syn_wanted = True
        return True

    def learn(self, segment: Segment, options: Options, now: float) -> None:
        """Take over what the peer's SYN says."""
        self.framing.learn(segment.number, options, now)
        self.sender.update_window(0, 0, segment.window)
        self.sender.has_sack = options.sack_permitted
        self.marks.learn(segment.flags)
        self.sender.begin(self.framing.segment)
        self.receiver.begin(WINDOW_SCALE if options.window_scale is not None else 0)

    def _establish(self, now: float) -> None:
        self.state = State.FIN_WAIT_1 if self.sender.fin_wanted else State.ESTABLISHED
        self._syn_wanted = False
        self._tries = 0
        self.receiver.ack_now = self.receiver.ack_now or not self.is_passive
        self.patience.heard(now)

    def _fin_acknowledged(self, now: float) -> None:
        if self.sender.acknowledged < self.sender.end:
            return
        if self.state is State.FIN_WAIT_1:
            self.state = State.FIN_WAIT_2
            if self._is_abandoned:
                self._end_at = now + TIME_WAIT
        elif self.state is State.CLOSING:
            self._wait(now)
        elif self.state is State.LAST_ACK:
            self._end(None)

    def _take(self, segment: Segment, start: int, now: float) -> None:
        receiver = self.receiver
        if self._is_abandoned and segment.payload and start + len(segment.payload) > receiver.next:
            self.abort()
            return
        if not segment.payload and not segment.flags & FIN:
            return
        receiver.take(start, segment.payload, is_last=bool(segment.flags & FIN), now=now)
        if not receiver.is_finished:
            return
        if self.state is State.ESTABLISHED:
            self.state = State.CLOSE_WAIT
        elif self.state is State.FIN_WAIT_1:
            self.state = State.CLOSING
        else:
            self._wait(now)

    def _refuse(self, start: int, length: int, now: float) -> None:
        """Tell the peer where we are: at once for what takes room, seldom for what may be an answer to the same."""
        if length:
            self.receiver.repeated(start, start + length)
        else:
            self._challenge(now)

    def _challenge(self, now: float) -> None:
        """Have the peer show what it means, not too often (RFC 5961, 7)."""
        if now - self._challenged_at >= _CHALLENGE_EVERY:
            self._challenged_at = now
            self.receiver.ack_now = True

    def _wait(self, now: float) -> None:
        self.state = State.TIME_WAIT
        self.receiver.finish()
        self._end_at = now + TIME_WAIT
        self.patience.stop()

    def _end(self, error: OSError | None) -> None:
        self.state = State.CLOSED
        self.error = self.error or error
        self._end_at = inf
        self.patience.stop()
        self.receiver.ack_now, self.receiver.ack_at = False, inf
        self.sender.timeout_at = self.sender.loss_at = self.sender.probe_at = inf
        self.sender.buffer.clear()
        self.receiver.finish()

    def is_outlived_by(self, segment: Segment) -> bool:
        """Whether a SYN begins another connection of the same names while this one only waits."""
        return self.state is State.TIME_WAIT and begins_another(segment, self.framing, self.receiver)

    @property
    def may_send(self) -> bool:
        """Whether `depart` may have something. Else only a call of ours, a segment or time can change that."""
        sender = self.sender
        if sender.next < sender.end or sender.lost or self.receiver.ack_now or self._reset_number is not None:
            return True
        return self._syn_wanted or self._tail_probe is not None or self.patience.probe_wanted

    @property
    def has_reset(self) -> bool:
        """A reset is still to leave."""
        return self._reset_number is not None

    # From the network.

    def unreachable(self, number: int, error: OSError) -> bool:
        """An ICMP error about a segment of ours with this sequence number. Whether it is to be believed.

        Only while the connection opens does one end it (RFC 1122, 4.2.3.9; RFC 5927).
        """
        if not self._is_in_flight(number):
            return False
        if self.state in OPENING:
            self._end(error)
        return True

    def shorten(self, mtu: int, number: int | None, now: float) -> bool:
        """The path takes packets of `mtu` bytes only; `number`: of a segment of ours that was too long."""
        if (number is not None and not self._is_in_flight(number)) or mtu >= self.framing.mtu:
            return False
        before = self.sender.segment
        self.resize(mtu)
        if self.sender.segment < before:
            self.sender.lose_longer(now)
        return True

    def resize(self, mtu: int) -> None:
        """Packets of `mtu` bytes may leave from now on; what has left is on its way (tcp_sync_mss)."""
        self.framing.mtu = mtu
        self.sender.segment = self.sender.congestion.segment = self.framing.segment

    def _is_in_flight(self, number: int) -> bool:
        offset = self.framing.offset(number, self.sender.acknowledged)
        return self.sender.acknowledged <= offset < max(self.sender.next, 1)

    # To the peer.

    def depart(self, most: int, now: float) -> Departure | None:
        """The next segments to leave: at most `most` of them."""
        if self._reset_number is not None:
            number, self._reset_number = self._reset_number, None
            if not self.receiver.next or self.state is not State.CLOSED:
                return self.framing.departure(number, RST)
            return self.framing.departure(number, RST | ACK, self.framing.their_number(self.receiver.next))
        if self.state in OPENING:
            return self._depart_opening(now)
        if self.state is State.CLOSED:
            return None
        sender = self.sender
        if sender.acknowledged == sender.next < sender.end and now - sender.idle_since > sender.trips.timeout:
            sender.congestion.idle()
            sender.idle_since = now
        leaving, self._tail_probe = self._tail_probe, None
        if leaving is not None and leaving.is_repeated and not sender.is_unanswered(leaving):
            leaving = None
        if leaving is None and self._black_hole is not None and not self.receiver.blocks():
            leaving = self._black_hole.probe(sender, self.framing, now)
        leaving = leaving or sender.leaving(most * sender.segment, nodelay=self.patience.settings.nodelay)
        if leaving is not None:
            return self._send(leaving, now)
        if sender.next < sender.end and not sender.in_flight and not sender.lost:
            self.patience.wait_for_window(now, sender.trips.timeout)
        if self.patience.probe_wanted:  # by what the peer has already, and must answer (tcp_xmit_probe_skb)
            self.patience.probe_wanted = False
            return self._departure(sender.acknowledged - 1, ACK, now)
        if self.receiver.ack_now:
            return self._departure(sender.next, ACK, now)
        return None

    def _depart_opening(self, now: float) -> Departure | None:
        if not self._syn_wanted:
            return None
        self._syn_wanted = False
        asks = self.state is State.SYN_SENT
        if not self.sender.next:
            self.sender.left(Leaving(0, 1, False), now)
        self.sender.timeout_at = now + self.sender.trips.timeout
        self.patience.sent(now)
        flags = (SYN if asks else SYN | ACK) | self.marks.asked(self._tries, is_answer=not asks)
        return self.framing.departure(
            self.framing.number(0),
            flags,
            0 if asks else self.framing.their_number(self.receiver.next),
            window=MAX_WINDOW if asks else self.receiver.edge - self.receiver.next,
            options=self.framing.greeting(now, asks or self.receiver.scale > 0, asks or self.sender.has_sack),
        )

    def _send(self, leaving: Leaving, now: float) -> Departure:
        sender = self.sender
        start, end, is_repeated = leaving
        flags = ACK
        if end >= sender.buffer.end:
            flags |= PSH
        if end > sender.buffer.end:
            flags |= FIN
        payload = sender.buffer.part(start, min(end, sender.buffer.end))
        self.patience.sent(now)
        sender.left(leaving, now)
        self.patience.persist_at = inf
        ecn = ECT_0 if self.marks.takes_part and payload and not is_repeated else 0
        is_whole = self._black_hole is not None and self._black_hole.is_probe(leaving)
        return self._departure(start, flags, now, payload, ecn, len(payload) if is_whole else sender.segment)

    def _departure(
        self, offset: int, flags: int, now: float, payload: bytes | memoryview = b"", ecn: int = 0, segment: int = 0
    ) -> Departure:
        """Segments from an offset of ours on, which acknowledge all that has come."""
        receiver, framing = self.receiver, self.framing
        if self.marks.takes_part:
            flags |= self.marks.flags(has_new_data=ecn > 0)
        departure = framing.departure(
            framing.number(offset),
            flags,
            framing.their_number(receiver.next),
            window=receiver.window() >> receiver.scale,
            options=framing.options(now, receiver.blocks() if self.sender.has_sack else ()),
            payload=payload,
            segment=segment,
            ecn=ecn,
        )
        framing.last_acknowledged = receiver.next
        receiver.acknowledged()
        return departure

    # Time.

    @property
    def deadline(self) -> float:
        """When `handle_timeout` is to be called, seconds; inf: never."""
        sender, patience = self.sender, self.patience
        return min(
            sender.timeout_at, sender.loss_at, sender.probe_at, self.receiver.ack_at, self._end_at,
            patience.fails_at, patience.persist_at, patience.keepalive_at,
        )  # fmt: skip

    def handle_timeout(self, now: float) -> None:
        """Do what is due. A call that comes early does nothing."""
        sender, receiver = self.sender, self.receiver
        if now >= self._end_at:
            self._end(None)
        elif now >= self.patience.fails_at:
            self._give_up()
        if now >= receiver.ack_at:
            receiver.ack_at, receiver.ack_now = inf, True
        if now >= sender.loss_at:
            sender.detect_loss(now)
        if now >= sender.probe_at:
            self._tail_probe = sender.probe(now)
        if now >= sender.timeout_at:
            self._timed_out(now)
        if now >= self.patience.persist_at:
            self._persist(now)
        if now >= self.patience.keepalive_at and not self.patience.ask_for_life(now, is_needed=not sender.in_flight):
            self._give_up()

    def _timed_out(self, now: float) -> None:
        sender = self.sender
        self._tries += 1
        if self._tries > retries(is_opening=self.state in OPENING, is_passive=self.is_passive):
            self._give_up()
            return
        if self.state in OPENING:
            sender.trips.back_off()
            sender.timeout_at = now + sender.trips.timeout
            self._syn_wanted = True
            return
        sender.timed_out(now)
        self._black_hole = self._black_hole or BlackHole()
        if (mtu := self._black_hole.suspect(self._tries, self.framing)) is not None:
            self.shorten(mtu, None, now)

    def _give_up(self) -> None:
        if self.state not in OPENING:
            self._reset_number = self.framing.number(self.sender.next)
        self._end(failure(ETIMEDOUT))

    def _persist(self, now: float) -> None:
        """The window has held back what there is to send for a timeout."""
        sender = self.sender
        self.patience.persist_at = inf
        if sender.next >= sender.end or sender.in_flight or sender.lost:
            return
        room = min(sender.acknowledged + sender.window - sender.next, sender.end - sender.next, sender.segment)
        if room > 0:  # little, but it will not be more (RFC 9293, 3.8.6.2.1)
            self._tail_probe = Leaving(sender.next, sender.next + room, False)
        else:
            sender.trips.back_off()
            self.patience.ask_for_window(now, sender.trips.timeout)
