"""Rules of single RFCs that a transfer may pass without: when to send, what to believe, how fast to go."""

from __future__ import annotations

from errno import ETIMEDOUT
from itertools import pairwise
from math import inf

import pytest

from tests.stack.line import PORT, Application, Line
from tests.stack.peer import PEER, drain, make_host, opened, segment
from wgpy.stack.ip import Drop
from wgpy.stack.tcp.congestion import Congestion
from wgpy.stack.tcp.header import ACK, RST, Options
from wgpy.stack.tcp.receiving import DELAYED_ACK
from wgpy.stack.tcp.state import State
from wgpy.stack.tcp.timers import MAX_TIMEOUT, MIN_TIMEOUT, RoundTrips

SEGMENT = 1000


def payloads(packets: list[bytes]) -> list[int]:
    return [len(packet) - 20 - (packet[32] >> 4) * 4 for packet in packets]


def test_a_segment_with_an_older_timestamp_is_refused() -> None:
    """PAWS, RFC 7323, 5: a duplicate from before the sequence numbers wrapped would be taken for new."""

    def stamped(value: int, number: int) -> None:
        acknowledgement = connection.framing.number(connection.sender.next)
        options = Options(timestamp=(value, 0)).pack()
        host.receive(segment(number, acknowledgement, ACK, b"abc", options=options), 1.0)

    host = make_host()
    stamps = [Options(mss=mss, timestamp=(1000, 0)).pack() for mss in (1380, None)]
    connection = opened(host, stamps[0], later=stamps[1])
    stamped(2000, 1)
    assert connection.read() == b"abc"
    drain(host, 1.0)
    stamped(1999, 4)
    assert connection.read() == b""
    assert host.drops[Drop.NOT_IN_WINDOW] == 1
    assert len(drain(host, 1.0)) == 1, "an acknowledgement tells where we are"
    stamped(2000, 4)
    assert connection.read() == b"abc"


def test_without_nodelay_small_writes_wait_for_what_is_under_way() -> None:
    """Nagle's algorithm, RFC 9293, 3.7.4."""
    host = make_host()
    connection = opened(host, Options(mss=SEGMENT).pack())
    connection.patience.settings.nodelay = False
    left = []
    for data in (b"a", b"b", b"c"):
        connection.write(data)
        host.wake(connection)
        left += payloads(drain(host))
    assert left == [1]
    host.receive(segment(1, connection.framing.number(connection.sender.next), ACK), 0.0)
    assert payloads(drain(host)) == [2]
    connection.write(bytes(SEGMENT + 1))
    host.wake(connection)
    assert payloads(drain(host)) == [SEGMENT], "what is full leaves"
    connection.patience.settings.nodelay = True
    host.wake(connection)
    assert payloads(drain(host)) == [1]


def test_a_silly_window_is_not_filled() -> None:
    """RFC 9293, 3.8.6.2.1: a few bytes at a time would cost a packet each."""
    host = make_host()
    connection = opened(host, Options(mss=SEGMENT).pack())
    connection.write(bytes(50_000))
    host.wake(connection)
    drain(host)
    upto = connection.framing.number(connection.sender.next)
    host.receive(segment(1, upto, ACK, window=300), 0.0)
    assert drain(host) == []
    host.receive(segment(1, upto, ACK, window=SEGMENT), 0.0)
    assert payloads(drain(host)) == [SEGMENT]


@pytest.mark.parametrize("user_timeout", [None, 30.0])
def test_a_closed_window_is_asked_about_for_as_long_as_it_takes(user_timeout: float | None) -> None:
    """RFC 9293, 3.8.6.1: the update that opens it may be lost, so nothing but a user timeout ends the questions."""
    host = make_host()
    connection = opened(host)
    connection.patience.settings.user_timeout = user_timeout
    upto = connection.framing.number(1)
    host.receive(segment(1, upto, ACK, window=0), 0.0)
    connection.write(b"what waits")
    host.wake(connection)
    assert drain(host) == []
    asked: list[float] = []
    while len(asked) < 20 and (now := host.next_timeout()) < inf:
        host.handle_timeout(now)
        for packet in drain(host, now):
            if connection.error is not None:
                assert packet[33] & RST
                break
            assert payloads([packet]) == [0]
            assert int.from_bytes(packet[24:28]) == upto - 1, "which the peer must answer"
            asked.append(now)
            host.receive(segment(1, upto, ACK, window=0), now)
    gaps = [after - before for before, after in pairwise(asked)]
    if user_timeout is None:
        assert len(asked) == 20
        assert gaps == sorted(gaps)
        assert max(gaps) == pytest.approx(MAX_TIMEOUT)
        host.receive(segment(1, upto, ACK, window=1000), now)
        assert payloads(drain(host, now)) == [len(b"what waits")]
    else:
        assert connection.error is not None
        assert connection.error.errno == ETIMEDOUT


def test_what_comes_together_is_acknowledged_once_and_one_small_segment_later() -> None:
    """RFC 5681, 4.2, by bursts; at the beginning of a connection each is acknowledged at once, as the kernel does."""
    host = make_host()
    connection = opened(host)
    upto, number = connection.framing.number(1), 1

    def come(packets: int, size: int) -> int:
        nonlocal number
        for _ in range(packets):
            host.collect(segment(number, upto, ACK, bytes(size)), 0.0)
            number += size
        host.handle(0.0)
        while connection.read():
            pass
        host.wake(connection)
        return len(drain(host))

    assert [come(1, 10) for _ in range(16)] == [1] * 16
    assert come(20, 1000) == 1
    assert come(1, 10) == 0
    host.handle_timeout(DELAYED_ACK)
    (answer,) = drain(host, DELAYED_ACK)
    assert int.from_bytes(answer[28:32]) == number


def test_the_last_segment_is_repeated_before_the_timeout_if_nothing_answers() -> None:
    """The tail loss probe, RFC 8985, 7: after two round trips."""
    line = Line()
    listener = line.hosts[1].listen(None, PORT)
    connection = line.hosts[0].connect(line.addresses[1], PORT, line.now)
    line.run(lambda: listener.waiting)
    receiver = Application(line.hosts[1].accept(listener), closes=False)
    connection.write(bytes(5 * 1368))
    line.hosts[0].wake(connection)
    line.faults.mtu = 1000
    line.flush()
    line.faults.mtu = 1500
    began = line.now

    def arrived() -> bool:
        receiver.run(line.hosts[1])
        return connection.sender.acknowledged > 5 * 1368

    line.run(arrived)
    assert line.now - began < MIN_TIMEOUT
    assert not connection.sender.trips.is_backed_off


@pytest.mark.parametrize("is_sacked", [False, True])
def test_a_tail_probe_that_is_answered_before_it_leaves_stays(is_sacked: bool) -> None:
    """What comes between the timer and the departure, in one turn of a loop, may have made the probe needless."""
    host = make_host()
    connection = opened(host, Options(mss=SEGMENT, sack_permitted=True).pack())
    sender, framing = connection.sender, connection.framing

    def write(count: int, now: float) -> None:
        connection.write(bytes(count))
        host.wake(connection)
        drain(host, now)

    def acknowledge(upto: int, now: float, *sacks: tuple[int, int]) -> None:
        options = Options(sacks=tuple((framing.number(start), framing.number(end)) for start, end in sacks)).pack()
        host.receive(segment(1, framing.number(upto), ACK, options=options), now)

    write(1, 1.0)
    acknowledge(sender.next, 1.1)  # so that it knows the round trip
    first = sender.next
    write(SEGMENT, 2.0)
    last = sender.next
    write(SEGMENT, 2.0)
    due = sender.probe_at
    assert due < sender.timeout_at
    host.handle_timeout(due)
    if is_sacked:
        acknowledge(first, due, (last, sender.next))
    else:
        acknowledge(sender.next, due)
    assert drain(host, due) == []
    assert sender.in_flight == (SEGMENT if is_sacked else 0)
    acknowledge(sender.next, due + 0.1)
    assert (sender.in_flight, sender.sacked, sender.lost) == (0, 0, 0)


def test_initial_sequence_numbers_cannot_be_guessed_and_grow_for_the_same_names() -> None:
    """RFC 6528, 3: a clock of four microseconds, and a secret offset for each pair of names."""

    def isn(port: int, now: float) -> int:
        connection = host.connect(PEER, port, now, local_port=4000)
        connection.abort()
        host.wake(connection)
        drain(host)
        return connection.framing.isn

    host = make_host()
    numbers = [isn(port, 0.0) for port in range(1, 50)]
    steps = {(b - a) % (1 << 32) for a, b in pairwise(numbers)}
    assert len(steps) == 48
    assert (isn(1, 2.0) - numbers[0]) % (1 << 32) == 500_000


def test_ephemeral_ports_are_drawn_at_random() -> None:
    """RFC 6056, 3.3.1: from the kernel's range, and none that is taken."""
    host = make_host()
    ports = [host.connect(PEER, PORT, 0.0).names.local_port for _ in range(300)]
    assert len(set(ports)) == 300
    assert min(ports) >= 32768
    assert max(ports) < 61000
    assert len({b - a for a, b in pairwise(ports)}) > 200


def rounds(congestion: Congestion, trips: list[float], start: int = 0) -> list[float]:
    """The window, in segments, after each of these round trips, in which all of it was used and acknowledged."""
    upto, now, windows = start, 0.0, []
    for trip in trips:
        now += trip
        count = max(1, int(congestion.window / SEGMENT))
        end = upto + count * SEGMENT
        for _ in range(count):
            upto += SEGMENT
            congestion.acknowledged(SEGMENT, upto, end + count * SEGMENT, now, trip, trip)
        windows.append(congestion.window / SEGMENT)
    return windows


def test_slow_start_becomes_cautious_when_the_delay_rises() -> None:
    """HyStart++, RFC 9406, 4.3: it ends after five such rounds, before the queue overflows."""
    congestion = Congestion(SEGMENT)
    windows = rounds(congestion, [0.02] * 3)
    assert windows == [20, 40, 80]
    (doubled, *slow) = rounds(congestion, [0.03] * 9, start=10**6)
    assert doubled < 160
    assert all(after / before < 1.3 for before, after in pairwise(slow))
    assert congestion.threshold < inf


def test_slow_start_goes_on_if_the_delay_was_not_our_queue() -> None:
    congestion = Congestion(SEGMENT)
    rounds(congestion, [0.02] * 3 + [0.03] * 2)
    rounds(congestion, [0.02] * 3, start=10**6)
    assert congestion.threshold == inf


@pytest.mark.parametrize("segments", [100, 1000])
def test_the_window_grows_as_a_cubic_function_of_time(segments: int) -> None:
    """RFC 9438, 4.2: K seconds after a loss it is back where the loss was, slowly, and then grows ever faster."""
    congestion = Congestion(SEGMENT)
    congestion.window = congestion.threshold = float(segments * SEGMENT)
    congestion.reduce()
    assert congestion.window == 0.7 * segments * SEGMENT
    trip, back = 0.1, (0.3 * segments / 0.4) ** (1 / 3)
    windows = rounds(congestion, [trip] * int(2 * back / trip))
    near = windows[int(back / trip) - 1]
    assert 0.97 * segments < near < 1.05 * segments
    growth = [after - before for before, after in pairwise(windows)]
    assert growth[0] > growth[len(growth) // 2] < growth[-1]


def test_the_timeout_follows_the_round_trips() -> None:
    """RFC 6298, 2: three times the first, then the average and four times the variation; doubled by each timeout."""
    trips = RoundTrips()
    assert trips.timeout == 1.0
    trips.sample(0.5, 0.0)
    assert trips.timeout == 1.5
    for _ in range(200):
        trips.sample(0.5, 1.0)
    assert 0.5 < trips.timeout < 0.51
    trips.back_off()
    assert 1.0 < trips.timeout < 1.02
    for _ in range(20):
        trips.back_off()
    assert trips.timeout == MAX_TIMEOUT
    trips.progress()
    for _ in range(200):
        trips.sample(0.001, 2.0)
    assert trips.timeout == MIN_TIMEOUT


def test_data_that_a_peer_discards_after_sack_is_sent_again() -> None:
    """RFC 2018, 8: after a timeout, if the first segment is one that it had told of."""
    host = make_host()
    connection = opened(host, Options(mss=SEGMENT, sack_permitted=True).pack())
    connection.write(bytes(5 * SEGMENT))
    host.wake(connection)
    drain(host)
    number = connection.framing.number
    sacks = Options(sacks=((number(1), number(1 + 2 * SEGMENT)),)).pack()
    host.receive(segment(1, number(1), ACK, options=sacks), 0.1)
    assert connection.sender.sacked == 2 * SEGMENT
    sent = 0
    while sent < 5 * SEGMENT:
        now = host.next_timeout()
        host.handle_timeout(now)
        sent += sum(payloads(drain(host, now)))
        assert connection.state is State.ESTABLISHED
    assert connection.sender.sacked == 0
