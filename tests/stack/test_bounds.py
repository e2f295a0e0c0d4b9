"""What strangers and peers can make a host hold is bounded, each by the constant that is named; nothing raises."""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
from collections.abc import Iterator
from ipaddress import ip_address
from math import inf
from typing import Any

import pytest

from tests.stack.line import PORT, Application, Faults, Line, transfer
from tests.stack.peer import drain, fragment, make_host, opened, segment
from tests.support.bursts import V4, V6
from tests.support.reference import udp_packet
from wgpy.burst import Burst
from wgpy.stack import udp
from wgpy.stack.fragments import MAX_BYTES, MAX_DATAGRAMS, MAX_PIECES
from wgpy.stack.host import MAX_ANSWERS, MAX_TIME_WAIT, Host
from wgpy.stack.icmp import ERRORS_AT_ONCE, ERRORS_PER_SECOND
from wgpy.stack.ip import Drop
from wgpy.stack.memory import Budget
from wgpy.stack.tcp.flights import Flight
from wgpy.stack.tcp.header import ACK, FIN, RST, SYN, Options
from wgpy.stack.tcp.receiving import CAPACITY, FIRST_WINDOW, LEAST_WINDOW, MAX_BLOCKS, Receiver
from wgpy.stack.tcp.receiving import MAX_PIECES as MAX_TCP_PIECES
from wgpy.stack.tcp.sending import MAX_FLIGHTS
from wgpy.stack.tcp.state import State


def test_a_syn_flood_keeps_no_more_than_the_backlog() -> None:
    host = make_host()
    listener = host.listen(None, PORT, backlog=32)
    for number in range(2000):
        host.receive(segment(0, 0, SYN, source=number.to_bytes(4), port=1 + number), 0.0)
    assert len(listener.half_open) == 32
    assert len(host._connections) == 32
    assert host.drops[Drop.BACKLOG_FULL] == 2000 - 32
    drain(host)
    assert len(host._deadlines) <= 32


def test_deadlines_that_come_and_go_leave_few_behind() -> None:
    """Each delayed acknowledgement is due long before the keepalive, whose entry is noted again and again."""
    host = make_host()
    connection = opened(host)
    connection.patience.settings.keepalive = 7200.0
    longest = 0
    for number in range(1, 1000):
        host.receive(segment(number, connection.framing.number(1), ACK, b"x"), number / 10)
        assert connection.read() == b"x"
        drain(host, number / 10)
        host.handle_timeout(number / 10 + 0.05)
        drain(host, number / 10 + 0.05)
        longest = max(longest, len(host._deadlines))
    assert 10 < longest <= 2 + 64


def test_a_syn_flood_takes_little_memory_and_gives_it_back() -> None:
    """Whether a half-open connection is pushed out by others, or given up."""
    host = make_host(memory=1 << 24)
    host.listen(None, PORT, backlog=32)
    for number in range(2000):
        host.receive(segment(0, 0, SYN, source=number.to_bytes(4), port=1 + number), 0.0)
        drain(host)
    assert host._budget.promised == 32 * LEAST_WINDOW
    while (at := host.next_timeout()) < inf:
        host.handle_timeout(at)
        drain(host, at)
    assert not host._connections
    assert host._budget.promised == 0


@pytest.mark.parametrize("reads", [True, False])
def test_resets_with_bytes_unread_give_memory_back(reads: bool) -> None:
    """What came before the reset may still be read; it is all that is held."""
    host = make_host(memory=1 << 24)
    for port in range(1, 100):
        connection = opened(host, port=port)
        acknowledgement = connection.framing.number(1)
        host.receive(segment(1, acknowledgement, ACK, bytes(1000), port=port), 0.0)
        drain(host)
        assert host._budget.promised == FIRST_WINDOW
        host.receive(segment(1001, acknowledgement, RST, port=port), 0.0)
        assert connection.state is State.CLOSED
        assert host._budget.promised == 1000
        if reads:
            assert connection.read() == bytes(1000)
        else:
            connection.receiver.discard()
        assert host._budget.promised == 0


def test_a_flood_of_syns_does_not_keep_an_honest_client_out() -> None:
    host = make_host()
    listener = host.listen(None, PORT, backlog=32)
    host.receive(segment(0, 0, SYN, port=77), 0.0)
    isn = int.from_bytes(drain(host)[0][24:28])
    for number in range(31):
        host.receive(segment(0, 0, SYN, source=number.to_bytes(4), port=1 + number), 0.0)
    host.receive(segment(1, isn + 1, ACK, port=77), 0.0)
    assert host.accept(listener) is not None


def test_connections_that_nobody_accepts_wait_up_to_the_backlog() -> None:
    line = Line()
    listener = line.hosts[1].listen(None, PORT, backlog=3)
    clients = [line.hosts[0].connect(line.addresses[1], PORT, line.now) for _ in range(10)]
    line.run(lambda: len(listener.waiting) == 3)
    for _ in range(5):
        line.flush()
        line.step()
    assert len(listener.waiting) == 3
    assert sum(client.state is State.ESTABLISHED for client in clients) == 3


def test_segments_to_closed_ports_are_answered_up_to_a_bound() -> None:
    host = make_host()
    for number in range(1000):
        host.receive(segment(number, 0, SYN, port=1 + number), 0.0)
    resets = drain(host)
    assert len(resets) == MAX_ANSWERS
    assert all(packet[33] == RST | ACK for packet in resets)
    assert host.drops[Drop.RATE_LIMITED] == 1000 - MAX_ANSWERS


def test_an_application_that_does_not_read_holds_back_its_peer() -> None:
    line = Line()
    line.hosts[1]._budget.limit = 200_000
    listener = line.hosts[1].listen(None, PORT)
    senders = [Application(line.hosts[0].connect(line.addresses[1], PORT, line.now), bytes(500_000)) for _ in range(8)]

    def work() -> bool:
        while line.hosts[1].accept(listener):
            pass
        for sender in senders:
            sender.run(line.hosts[0])
        line.flush()
        return line.now > 1020

    line.run(work)
    held = sum(connection.receiver.unread_size for connection in line.hosts[1]._connections.values())
    assert 200_000 - 8 * 65536 < held <= 200_000 + 8 * LEAST_WINDOW
    assert line.hosts[1]._budget.promised <= 200_000 + 8 * LEAST_WINDOW


def test_closed_connections_free_their_memory() -> None:
    line = Line()
    transfer(line, bytes(10_000), bytes(5_000))
    while line.step():
        line.flush()
    assert [host._budget.promised for host in line.hosts] == [0, 0]
    assert all(not host._listener_of and not host._time_wait and not host._ready for host in line.hosts)


@pytest.mark.parametrize("order", ["forwards", "backwards", "mixed", "every second"])
def test_tiny_segments_out_of_order(order: str) -> None:
    """However a window's bytes come one by one, the pieces are bounded, and so is the work for each."""
    receiver = Receiver(Budget(1 << 20), 1000)
    receiver.begin(0)
    offsets = list(range(2, 20_000))
    if order == "backwards":
        offsets.reverse()
    elif order == "mixed":
        random.Random(5).shuffle(offsets)
    elif order == "every second":
        offsets = offsets[::2]
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        for offset in offsets:
            receiver.take(offset, b"x", is_last=False, now=0.0)
    finally:
        sys.setprofile(None)
    assert receiver._pieces <= MAX_TCP_PIECES
    assert len(receiver._blocks) <= MAX_BLOCKS
    assert sum(len(block.pieces) for block in receiver._blocks) == receiver._pieces
    assert calls <= 12 * len(offsets)


def test_tiny_segments_in_order_share_objects() -> None:
    receiver = Receiver(Budget(8 << 20), 1000)
    receiver.begin(7)
    assert receiver.window() == FIRST_WINDOW
    for offset in range(1, 50_001):
        receiver.take(offset, b"x", is_last=False, now=0.0)
    assert receiver.unread_size == 50_000
    assert len(receiver.unread) <= 3
    assert receiver.unread_size <= CAPACITY


def test_selective_acknowledgements_split_what_was_sent_into_a_bounded_number() -> None:
    host = make_host()
    options = Options(mss=1380, sack_permitted=True, window_scale=7).pack()
    connection = opened(host, options)
    connection.write(bytes(2_000_000))
    host.wake(connection)
    isn = connection.framing.isn
    connection.sender.congestion.window = 1e9
    host.receive(segment(1, isn + 1, ACK), 0.0)
    drain(host)
    for at in range(2, 100_000, 24):
        sacks = tuple((isn + at + 8 * i, isn + at + 8 * i + 1) for i in range(3))
        host.receive(segment(1, isn + 1, ACK, options=Options(sacks=sacks).pack()), 0.0)
    assert len(connection.sender._flights) <= MAX_FLIGHTS + 2
    sizes = [flight.end - flight.start for flight in connection.sender._flights]
    assert sum(sizes) == connection.sender.next - connection.sender.acknowledged


class Counted(list[Flight]):
    """Counts how often one of its flights is looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Flight]:
        for flight in super().__iter__():
            self.looks += 1
            yield flight

    def __getitem__(self, i: Any) -> Any:
        self.looks += 1
        return super().__getitem__(i)


def test_a_thousand_gaps_are_not_searched_from_the_beginning_for_each_segment_that_fills_one() -> None:
    """A peer may SACK every other byte: then each range that is lost leaves alone."""
    host, gaps = make_host(), 1000
    connection = opened(host, Options(mss=1380, sack_permitted=True, window_scale=7).pack())
    isn, sender = connection.framing.isn, connection.sender
    connection.write(bytes(2 * gaps + 1))
    host.wake(connection)
    drain(host)
    for at in range(2, 2 * gaps, 6):
        sacks = tuple((isn + at + 2 * i, isn + at + 2 * i + 1) for i in range(3))
        host.receive(segment(1, isn + 1, ACK, options=Options(sacks=sacks).pack()), 0.0)
    sender.timed_out(1.0)
    sender.congestion.window = 1e9
    sender._flights = counted = Counted(sender._flights)
    host.wake(connection)
    assert len(drain(host, 1.0)) >= gaps
    assert counted.looks < 50 * gaps


def test_each_look_for_losses_finds_one_or_is_the_last() -> None:
    """However much is under way (RFC 8985, 6.2): a peer may SACK byte by byte, and have us look each time."""
    host, count, told = make_host(), 3000, 300
    connection = opened(host, Options(mss=1380, sack_permitted=True, window_scale=7).pack())
    isn, sender = connection.framing.isn, connection.sender
    for _ in range(count):  # each leaves alone
        connection.write(b"x")
        host.wake(connection)
        drain(host)
        sender.congestion.window = 1e9
    sender._rack._under_way = counted = Counted(sender._rack._under_way)
    for number in range(told):
        sack = isn + count - number, isn + count - number + 1
        host.receive(segment(1, isn + 1, ACK, options=Options(sacks=(sack,)).pack()), 0.1)
    assert sender.sacked == told
    searched = told * count.bit_length()  # to take what has come out of the middle
    assert counted.looks <= searched + 2 * told
    host.handle_timeout(0.2)
    assert sender.lost == count - told
    assert counted.looks <= searched + 2 * told + 2 * count


@pytest.mark.parametrize("flags", [ACK, ACK | FIN, SYN | ACK, RST, RST | ACK, SYN, FIN, 0xFF, 0])
def test_malformed_segments_do_not_change_a_connection(flags: int) -> None:
    """An acknowledgement of what was never sent, a shrunk window, numbers from elsewhere: no state, no error."""
    host = make_host()
    connection = opened(host)
    chance = random.Random(flags)
    for _ in range(2000):
        number = 2 + CAPACITY + chance.randrange(1 << 31)  # never in the window
        acknowledgement = chance.randrange(1 << 32)
        host.receive(
            segment(number, acknowledgement, flags, bytes(chance.randrange(40)), window=chance.randrange(99)), 0.0
        )
    assert connection.state is State.ESTABLISHED
    assert connection.error is None
    assert len(drain(host)) <= 2


def test_a_shrinking_window_is_handled() -> None:
    line = Line()
    listener = line.hosts[1].listen(None, PORT)
    connection = line.hosts[0].connect(line.addresses[1], PORT, line.now)
    connection.write(bytes(300_000))
    line.run(lambda: connection.sender.next > 50_000)
    connection.sender.update_window(1 << 40, 1 << 40, 0)
    for _ in range(20):
        line.flush()
        line.step()
    assert connection.state is State.ESTABLISHED
    assert line.hosts[1].accept(listener) is not None


def test_challenge_acknowledgements_are_rate_limited() -> None:
    """RFC 5961: a forged RST or SYN in the window is answered once in half a second, and ends nothing."""
    host = make_host()
    connection = opened(host)
    for flags in (RST, SYN):
        for number in range(2, 1000):
            host.receive(segment(number, 0, flags), 1.0)
    assert connection.state is State.ESTABLISHED
    assert len(drain(host, 1.0)) == 1


def test_time_wait_is_bounded() -> None:
    host = make_host(1 << 30)
    for port in range(MAX_TIME_WAIT + 10):
        connection = opened(host, port=1 + port)
        connection.shutdown()
        host.wake(connection)
        (fin,) = drain(host)
        number = int.from_bytes(fin[24:28])
        host.receive(segment(1, number + 1, ACK | FIN, port=1 + port), 0.0)
        assert connection.state is State.TIME_WAIT
        drain(host)
    assert len(host._connections) == len(host._time_wait) == MAX_TIME_WAIT


def test_fragments_are_bounded_and_none_overlap() -> None:
    host = make_host()
    socket = host.bind_udp(None, 53)
    for identification in range(3000):
        host.receive(fragment(identification, 0, bytes(1400), more=True), 0.0)
    fragments = host._fragments
    assert len(fragments._waiting) <= MAX_DATAGRAMS
    assert fragments._bytes <= MAX_BYTES
    for offset in range(0, 65000, 8):
        host.receive(fragment(9999, offset, bytes(8), more=True), 0.0)
    assert all(len(waiting.parts) <= MAX_PIECES for waiting in fragments._waiting.values())
    host.receive(fragment(4, 0, bytes(16), more=True), 0.0)
    host.receive(fragment(4, 8, bytes(16), more=False), 0.0)
    assert host.drops[Drop.FRAGMENT] > 0
    assert not socket.received
    host.receive(fragment(5, 0, bytes(8), more=True), 40.0)  # the others are too old by now
    assert len(fragments._waiting) == 1


@pytest.mark.parametrize("family", [V4, V6])
def test_errors_are_bounded_to_one_source_and_to_all(family: tuple[str, str]) -> None:
    """A peer may have more addresses than anybody counts, or forge them."""
    own = ip_address(family[1])
    host = Host([own.packed], mtu=1420, random=random.Random(1).randbytes)

    def errors(sources: list[int], now: float) -> int:
        answers = 0
        for number in sources:
            source = str(ip_address(family[0]) + (number << 64 if own.version == 6 else number))
            host.receive(Burst.of(udp_packet(source, family[1], b"x", ports=(7, 53))), now)
            answers += len(drain(host, now))
        return answers

    many = list(range(1000))
    assert errors(many, 1.0) == ERRORS_AT_ONCE
    assert host.drops[Drop.RATE_LIMITED] == len(many) - ERRORS_AT_ONCE
    assert errors(many, 1.02) == pytest.approx(0.02 * ERRORS_PER_SECOND, abs=1)
    assert errors(many, 9.0) == ERRORS_AT_ONCE
    assert errors([7] * 100, 20.0) == 5


def test_a_fragmented_datagram_arrives_whole() -> None:
    line = Line(mtu=576)
    payload = random.Random(1).randbytes(5000)
    sender, receiver = line.hosts[0].bind_udp(None, 1000), line.hosts[1].bind_udp(None, 53)
    line.hosts[0].send_udp(sender, payload, (line.addresses[1], 53), line.now)
    line.run(lambda: receiver.received)
    assert receiver.take() == udp.Datagram((line.addresses[0], 1000), (line.addresses[1], 53), payload)


def test_a_socket_that_nobody_reads_holds_a_bounded_number_of_datagrams() -> None:
    line = Line()
    sender, receiver = line.hosts[0].bind_udp(None, 1000), line.hosts[1].bind_udp(None, 53)
    for _ in range(3000):
        line.hosts[0].send_udp(sender, b"", (line.addresses[1], 53), line.now)
        line.flush()
    while line.flying:
        line.step()
    assert len(receiver.received) <= udp.QUEUE_BYTES // 256
    assert line.hosts[1].drops[Drop.QUEUE_FULL] > 2000


@pytest.mark.parametrize("seed", range(20))
def test_random_packets_raise_nothing(seed: int) -> None:
    """Real packets with some bytes changed, to a host with a listener, a connection and a socket."""
    line = Line(seed, Faults(corrupt=1.0, repeat=0.3), v6=bool(seed & 1))
    line.hosts[1].listen(None, PORT)
    line.hosts[1].bind_udp(None, 53)
    sender = line.hosts[0].bind_udp(None, 54)
    chance = random.Random(seed)
    for _ in range(100):
        line.hosts[0].connect(line.addresses[1], PORT, line.now)
        line.hosts[0].send_udp(sender, chance.randbytes(30), (line.addresses[1], 53), line.now)
        line.hosts[0].ping(line.addresses[1], 1, 1, b"x", line.now)
        line.flush()
        for _ in range(20):
            packet = chance.randbytes(chance.randrange(1, 100))
            if chance.random() < 0.8:
                packet = bytes([0x60 if seed & 1 else 0x45]) + packet[1:]
            line.hosts[1].receive(Burst.of(packet), line.now)
        line.step()


def test_an_idle_connection_takes_little_memory() -> None:
    host, count = make_host(64 << 20), 200
    listener = host.listen(None, PORT, backlog=count)
    opened(host, port=1, listener=listener)
    gc.collect()
    tracemalloc.start()
    try:
        kept = [opened(host, port=100 + i, listener=listener) for i in range(count)]
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert len(kept) == count
    assert each < 4096  # 2460 with Python 3.11; an empty deque, of which there were three, takes 760
