"""Both halves of a TCP connection against slow and obvious models: a byte is what came first, or flies, or is known."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from wgpy.stack.memory import Budget
from wgpy.stack.tcp.flights import Leaving
from wgpy.stack.tcp.receiving import Receiver
from wgpy.stack.tcp.sending import Sender

SIZE = 400

segments = st.lists(st.tuples(st.integers(0, SIZE + 20), st.integers(0, 60), st.integers(0, 255)), max_size=60)


@example(segments=[(2, 1, 0), (4, 1, 0), (1, 3, 0), (0, 1, 0)], fin=None)
@given(segments=segments, fin=st.one_of(st.none(), st.integers(0, 60)))
def test_overlapping_segments_are_put_together_as_by_the_obvious_model(
    segments: list[tuple[int, int, int]], fin: int | None
) -> None:
    """Of bytes behind a gap what came first stays; what continues the stream is taken as it is, as by the kernel."""
    receiver = Receiver(Budget(1 << 20), 1000)
    receiver.begin(7)
    stored: dict[int, int] = {}
    whole, read, last = bytearray(), bytearray(), 1 << 30
    for number, (start, size, value) in enumerate(segments):
        payload = bytes((value + i) % 256 for i in range(size))
        is_last = fin is not None and number == fin % len(segments)
        if not receiver.accepts(1 + start, size + is_last):
            continue
        if is_last:
            last = start + size
        receiver.take(1 + start, payload, is_last=is_last, now=0.0)
        for i, byte in enumerate(payload[: max(0, last - start)]):
            if start > len(whole) or (i and start + i > len(whole)):
                stored.setdefault(start + i, byte)
            elif start + i == len(whole):
                whole.append(byte)
        while len(whole) in stored:
            whole.append(stored[len(whole)])
        while data := receiver.read():
            read += data
        assert read == whole
        assert receiver.is_finished == (len(whole) >= last)


class Line:
    """What an obvious sender would know of each of its bytes."""

    def __init__(self) -> None:
        self.sender = Sender(10)
        self.sender.acknowledged = self.sender.next = 1
        self.sender.has_sack, self.sender.window = True, 2000
        self.sender.trips.sample(0.1, 0.0)
        self.now = 0.0
        self.acknowledged = 1
        self.sacked: set[int] = set()

    def check(self) -> None:
        sender = self.sender
        assert sender.acknowledged == self.acknowledged
        assert sender.in_flight + sender.lost + sender.sacked == sender.next - sender.acknowledged
        sizes = {"sacked": 0, "lost": 0, "in_flight": 0}
        at = sender.acknowledged
        for flight in sender._flights:
            assert flight.start == at < flight.end
            at = flight.end
            assert not (flight.is_sacked and flight.is_lost)
            kind = "sacked" if flight.is_sacked else "lost" if flight.is_lost else "in_flight"
            sizes[kind] += flight.end - flight.start
            if flight.is_sacked:
                assert self.sacked.issuperset(range(flight.start, flight.end))
        assert at == sender.next
        assert sizes == {kind: getattr(sender, kind) for kind in sizes}
        under_way = [flight for flight in sender._flights if not flight.is_sacked and not flight.is_lost]
        assert sender._rack._under_way == sorted(under_way, key=lambda flight: (flight.at, flight.end))
        assert sender.sacked == len([byte for byte in self.sacked if byte >= self.acknowledged])

    def leave(self, leaving: Leaving | None) -> None:
        if leaving is None:
            return
        sender = self.sender
        assert self.acknowledged <= leaving.start < leaving.end <= self.acknowledged + sender.window
        assert leaving.is_repeated == (leaving.start < sender.next)
        assert leaving.end <= sender.end
        if leaving.is_repeated:
            assert not self.sacked.intersection(range(leaving.start, leaving.end)), "the peer has that"
        sender.left(leaving, self.now)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 300), st.just(0)),
        st.tuples(st.just("leave"), st.integers(1, 8), st.just(0)),
        st.tuples(st.just("ack"), st.integers(0, 100), st.just(0)),
        st.tuples(st.just("sack"), st.integers(0, 300), st.integers(1, 60)),
        st.tuples(st.just("wait"), st.integers(1, 500), st.just(0)),
        st.tuples(st.just("timeout"), st.just(0), st.just(0)),
        st.tuples(st.just("probe"), st.just(0), st.just(0)),
        st.tuples(st.just("resize"), st.integers(3, 20), st.just(0)),
    ),
    max_size=80,
)


@given(actions=actions)
def test_what_is_under_way_is_accounted_for_as_by_the_obvious_model(actions: list[tuple[str, int, int]]) -> None:
    """In flight, lost and SACKed are all; what the peer has is not sent again, nor anything beyond its window."""
    line = Line()
    sender = line.sender
    for action, number, size in actions:
        line.now += 0.001
        if action == "write":
            sender.write(bytes(number))
        elif action == "leave":
            line.leave(sender.leaving(number * sender.segment, nodelay=True))
        elif action == "ack":
            upto = line.acknowledged + (sender.next - line.acknowledged) * number // 100
            line.acknowledged = upto
            echoed = int(line.now * 1000) - number
            sender.acknowledge(upto, [], line.now, is_duplicate=not number, echoed=echoed)
        elif action == "sack":
            start = line.acknowledged + number
            end = min(start + size, sender.next)
            if start < end:
                line.sacked.update(range(start, end))
                sender.acknowledge(line.acknowledged, [(start, end)], line.now, is_duplicate=True)
        elif action == "wait":
            line.now += number / 1000
            if line.now >= sender.loss_at:
                sender.detect_loss(line.now)
        elif action == "timeout" and sender.next > sender.acknowledged:
            if sender._flights[0].is_sacked:  # the peer has forgotten what it told
                line.sacked.clear()
            sender.timed_out(line.now)
        elif action == "probe":
            line.leave(sender.probe(line.now))
        elif action == "resize":
            sender.segment = sender.congestion.segment = number
            sender.lose_longer(line.now)
        line.check()
