"""Every state with every event (RFC 9293, 3.10), and two hosts under random actions against an obvious model."""

from __future__ import annotations

import errno
from collections.abc import Callable
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stack.line import PORT, Faults, Line
from tests.stack.peer import OURS, PEER, drain, make_host, segment
from wgpy.burst import Burst
from wgpy.stack import icmp, ip
from wgpy.stack.host import Host
from wgpy.stack.tcp.connection import Connection
from wgpy.stack.tcp.header import ACK, FIN, HEADER, RST, SYN
from wgpy.stack.tcp.state import State

S = State


class Rig:
    """Our host and a peer of few words: its SYN has number 0; `mine` is the number after all that we sent."""

    def __init__(self) -> None:
        self.host: Host = make_host()
        self.now = 0.0
        self.connection: Connection | None = None
        self.next = 1  # of the peer's sequence numbers

    @property
    def mine(self) -> int:
        assert self.connection is not None
        return self.connection.framing.number(self.connection.sender.next)

    def tell(
        self, flags: int, number: int | None = None, acknowledgement: int | None = None, payload: bytes = b""
    ) -> None:
        number = self.next if number is None else number
        acknowledgement = self.mine if acknowledgement is None else acknowledgement
        self.host.receive(segment(number, acknowledgement, flags, payload, port=1024), self.now)

    def sent(self) -> list[tuple[int, bytes]]:
        """The flags and payload of each segment that leaves."""
        return [(packet[33], packet[20 + (packet[32] >> 4) * 4 :]) for packet in drain(self.host, self.now)]

    def wake(self) -> None:
        assert self.connection is not None
        self.host.wake(self.connection)

    def outlive(self) -> int:
        """Let time pass, with a peer that says nothing, until the connection is closed; how many segments it sent."""
        assert self.connection is not None
        count = 0
        while self.connection.state is not S.CLOSED:
            count += len(self.sent())
            self.now = self.host.next_timeout()
            self.host.handle_timeout(self.now)
        return count


def reach(state: State) -> Rig:
    """A connection in this state, with nothing left to send."""
    rig = Rig()
    if state in (S.SYN_SENT, S.CLOSED):
        rig.connection = rig.host.connect(PEER, 1024, 0.0, local_port=PORT)
        rig.sent()
        if state is S.CLOSED:
            rig.connection.abort()
            rig.wake()
        return rig
    listener = rig.host.listen(None, PORT)
    rig.host.receive(segment(0, 0, SYN), 0.0)
    rig.connection = next(iter(listener.half_open))
    rig.sent()
    if state is S.SYN_RECEIVED:
        return rig
    rig.tell(ACK)
    assert rig.host.accept(listener) is rig.connection
    rig.host.close_listener(listener)
    if state in (S.CLOSE_WAIT, S.LAST_ACK):
        rig.tell(ACK | FIN)
        rig.next += 1
    if state not in (S.ESTABLISHED, S.CLOSE_WAIT):
        rig.connection.shutdown()
        rig.wake()
    rig.sent()
    if state in (S.FIN_WAIT_2, S.TIME_WAIT):
        rig.tell(ACK)
    if state is S.CLOSING:
        rig.tell(ACK | FIN, acknowledgement=rig.mine - 1)
        rig.next += 1
    if state is S.TIME_WAIT:
        rig.tell(ACK | FIN)
        rig.next += 1
    rig.sent()
    assert rig.connection.state is state
    return rig


def peer(flags: int, number: int = 0, acknowledges: int = 0, payload: bytes = b"") -> Callable[[Rig], None]:
    """The peer's segment: its number and acknowledgement relative to what is expected and to all that we sent."""
    return lambda rig: rig.tell(flags, (rig.next + number) % (1 << 32), (rig.mine + acknowledges) % (1 << 32), payload)


def unreachable(rig: Rig) -> None:
    """A router says of what is under way that the peer cannot be reached."""
    assert rig.connection is not None
    number = rig.connection.framing.number(rig.connection.sender.acknowledged)
    quoted = ip.header(OURS, PEER, ip.TCP, 20) + HEADER.pack(PORT, 1024, number, 0, 0x50, ACK, 0, 0, 0)
    message = icmp._message(PEER, OURS, bytes((3, 1)), bytes(4) + quoted)
    rig.host.receive(Burst.of(ip.header(PEER, OURS, ip.ICMP, len(message)) + message), rig.now)


def a_minute_passes(rig: Rig) -> None:
    rig.now += 60
    rig.host.handle_timeout(rig.now)


def application(name: str) -> Callable[[Rig], None]:
    def act(rig: Rig) -> None:
        assert rig.connection is not None
        {
            "write": lambda connection: connection.write(b"abc"),
            "shutdown": lambda connection: connection.shutdown(),
            "close": lambda connection: connection.close(rig.now),
            "abort": lambda connection: connection.abort(),
        }[name](rig.connection)
        rig.wake()

    return act


EVENTS: dict[str, Callable[[Rig], None]] = {
    "ack": peer(ACK),
    "ack of what was never sent": peer(ACK, acknowledges=5),
    "data": peer(ACK, payload=b"xy"),
    "data out of the window": peer(ACK, number=1 << 30, payload=b"xy"),
    "fin": peer(ACK | FIN),
    "fin, ours not acknowledged": peer(ACK | FIN, acknowledges=-1),
    "rst": peer(RST | ACK),
    "rst in the window": peer(RST, number=7),
    "rst out of the window": peer(RST, number=1 << 30),
    "syn in the window": peer(SYN, number=7),
    "syn, answer": peer(SYN | ACK, number=-1),
    "no flags": peer(0),
    "keepalive": peer(ACK, number=-1),
    "unreachable": unreachable,
    "a minute": a_minute_passes,
    "write": application("write"),
    "shutdown": application("shutdown"),
    "close": application("close"),
    "abort": application("abort"),
}

# What an event makes of a state; where nothing is said, the state stays.
BECOMES: dict[tuple[str, State], State] = {
    ("syn, answer", S.SYN_SENT): S.ESTABLISHED,
    ("syn in the window", S.SYN_SENT): S.SYN_RECEIVED,  # both open at once
    ("rst", S.SYN_SENT): S.CLOSED,
    ("ack", S.SYN_RECEIVED): S.ESTABLISHED,
    ("data", S.SYN_RECEIVED): S.ESTABLISHED,
    ("fin", S.SYN_RECEIVED): S.CLOSE_WAIT,
    ("fin", S.ESTABLISHED): S.CLOSE_WAIT,
    ("fin, ours not acknowledged", S.FIN_WAIT_1): S.CLOSING,
    ("fin", S.FIN_WAIT_1): S.TIME_WAIT,
    ("ack", S.FIN_WAIT_1): S.FIN_WAIT_2,
    ("data", S.FIN_WAIT_1): S.FIN_WAIT_2,
    ("fin", S.FIN_WAIT_2): S.TIME_WAIT,
    ("ack", S.CLOSING): S.TIME_WAIT,
    ("data", S.CLOSING): S.TIME_WAIT,
    ("fin", S.CLOSING): S.TIME_WAIT,
    ("ack", S.LAST_ACK): S.CLOSED,
    ("data", S.LAST_ACK): S.CLOSED,
    ("fin", S.LAST_ACK): S.CLOSED,
    ("fin, ours not acknowledged", S.ESTABLISHED): S.CLOSE_WAIT,
    ("shutdown", S.ESTABLISHED): S.FIN_WAIT_1,
    ("close", S.ESTABLISHED): S.FIN_WAIT_1,
    ("shutdown", S.CLOSE_WAIT): S.LAST_ACK,
    ("close", S.CLOSE_WAIT): S.LAST_ACK,
    ("close", S.SYN_SENT): S.CLOSED,
    ("fin, ours not acknowledged", S.FIN_WAIT_2): S.TIME_WAIT,
    ("unreachable", S.SYN_SENT): S.CLOSED,  # later it is only a hint (RFC 1122, 4.2.3.9)
    ("unreachable", S.SYN_RECEIVED): S.CLOSED,
    ("a minute", S.TIME_WAIT): S.CLOSED,
}
ENDED_BY = {"rst": set(State), "abort": set(State) - {S.TIME_WAIT}}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", State)
def test_every_state_handles_every_event(state: State, event: str) -> None:
    rig = reach(state)
    EVENTS[event](rig)
    expected = BECOMES.get((event, state), state)
    if state in ENDED_BY.get(event, ()) or (event == "abort" and state is S.TIME_WAIT):
        expected = S.CLOSED
    assert rig.connection is not None
    assert rig.connection.state is expected
    rig.sent()
    if rig.connection.state is S.CLOSED:
        assert rig.connection.deadline == inf
        assert rig.connection.key not in rig.host._connections


@pytest.mark.parametrize(
    ("state", "event", "flags"),
    [
        (S.SYN_SENT, "ack of what was never sent", [RST, SYN]),
        (S.SYN_RECEIVED, "ack of what was never sent", [RST]),
        (S.ESTABLISHED, "ack of what was never sent", [ACK]),
        (S.ESTABLISHED, "data out of the window", [ACK]),
        (S.ESTABLISHED, "rst in the window", [ACK]),
        (S.ESTABLISHED, "rst out of the window", []),
        (S.ESTABLISHED, "syn in the window", [ACK]),
        (S.ESTABLISHED, "data", [ACK]),
        (S.ESTABLISHED, "fin", [ACK]),
        (S.ESTABLISHED, "abort", [RST | ACK]),
        (S.FIN_WAIT_2, "fin", [ACK]),
        (S.TIME_WAIT, "fin", [ACK]),
        (S.CLOSED, "data", [RST]),
        (S.CLOSED, "rst", []),
    ],
)
def test_segments_get_the_answers_of_the_rfc(state: State, event: str, flags: list[int]) -> None:
    rig = reach(state)
    EVENTS[event](rig)
    assert [sent & (SYN | ACK | RST | FIN) for sent, _ in rig.sent()] == flags


@pytest.mark.parametrize(
    ("flags", "answer"),
    [
        (SYN, SYN | ACK),
        (SYN | FIN, None),  # as the kernel
        (ACK, RST),
        (SYN | ACK, RST),
        (ACK | FIN, RST),
        (RST, None),
        (RST | ACK, None),
        (FIN, None),
        (0, None),
    ],
)
def test_a_listener_answers_as_the_kernels(flags: int, answer: int | None) -> None:
    rig = Rig()
    rig.host.listen(None, PORT)
    rig.host.receive(segment(7, 9, flags), 0.0)
    assert [sent for sent, _ in rig.sent()] == ([] if answer is None else [answer])


def test_a_repeated_fin_is_acknowledged_again_and_restarts_time_wait() -> None:
    rig = reach(S.TIME_WAIT)
    rig.now = 30.0
    rig.tell(ACK | FIN, number=rig.next - 1)
    assert [flags for flags, _ in rig.sent()] == [ACK]
    assert rig.connection is not None
    assert rig.connection.deadline == 90.0


def test_a_port_in_time_wait_is_taken_by_a_later_syn() -> None:
    rig = reach(S.TIME_WAIT)
    rig.host.listen(None, PORT)
    rig.host.receive(segment(1000, 0, SYN), 1.0)
    assert [packet[33] & (SYN | ACK) for packet in drain(rig.host, 1.0)] == [SYN | ACK]


@pytest.mark.parametrize(
    ("state", "seconds", "number"),
    [(S.SYN_SENT, 127, errno.ETIMEDOUT), (S.ESTABLISHED, 1500, errno.ETIMEDOUT)],
)
def test_a_peer_that_vanishes(state: State, seconds: float, number: int) -> None:
    """An opening gives up after 127 s, as the kernel's does; bytes after fifteen tries."""
    rig = reach(state)
    assert rig.connection is not None
    rig.connection.write(b"abc")
    rig.wake()
    rig.outlive()
    assert rig.connection.error is not None
    assert rig.connection.error.errno == number
    assert isinstance(rig.connection.error, TimeoutError)
    assert seconds * 0.5 < rig.now <= seconds + 1


def test_user_timeout_and_keepalive() -> None:
    rig = reach(S.ESTABLISHED)
    assert rig.connection is not None
    rig.connection.patience.settings.user_timeout = 5.0
    rig.connection.write(b"abc")
    rig.wake()
    rig.outlive()
    assert rig.now == 5.0
    rig = reach(S.ESTABLISHED)
    assert rig.connection is not None
    settings = rig.connection.patience.settings
    settings.keepalive, settings.keepalive_interval, settings.keepalive_count = 10.0, 2.0, 3
    rig.connection.patience.heard(0.0)
    rig.wake()
    probes = rig.outlive()
    assert (probes, rig.now) == (3, 16.0)


actions = st.lists(
    st.tuples(
        st.sampled_from(["write", "big", "shutdown", "read", "wait", "wait", "close", "abort"]), st.sampled_from([0, 1])
    ),
    max_size=30,
)


@given(actions=actions, seed=st.integers(0, 1000), loss=st.sampled_from([0.0, 0.0, 0.1]), both=st.booleans())
def test_two_hosts_under_random_actions(actions: list[tuple[str, int]], seed: int, loss: float, both: bool) -> None:
    """What an end reads is the beginning of what the other wrote; all of it, if neither reset nor stopped reading."""
    line = Line(seed, Faults(loss=loss, delay=0.005))
    listener = line.hosts[1].listen(None, PORT)
    ends: list[Connection | None] = [line.hosts[0].connect(line.addresses[1], PORT, line.now), None]
    written, read = [bytearray(), bytearray()], [bytearray(), bytearray()]
    violent = False
    if not both:
        line.run(lambda: listener.waiting)

    def advance(steps: int) -> None:
        for _ in range(steps):
            line.flush()
            if ends[1] is None:
                ends[1] = line.hosts[1].accept(listener)
            if not line.step():
                return

    for action, i in [*actions, ("shutdown", 0), ("shutdown", 1)]:
        end = ends[i]
        if action == "wait" or end is None:
            advance(3)
            continue
        if action in ("write", "big"):
            data = bytes([len(written[i]) % 251]) * (100 if action == "write" else 100_000)
            if not end.sender.fin_wanted and end.state is not S.CLOSED:
                written[i] += data
            end.write(data)
        elif action == "read":
            while piece := end.read():
                read[i] += piece
        elif action == "shutdown":
            end.shutdown()
        else:
            violent = True
            end.close(line.now) if action == "close" else end.abort()
        line.hosts[i].wake(end)
    for _ in range(3000):
        advance(1)
        for i, end in enumerate(ends):
            if end is not None and i == 1 and not end.sender.fin_wanted:
                end.shutdown()
                line.hosts[1].wake(end)
            while end is not None and (piece := end.read()):
                read[i] += piece
                line.hosts[i].wake(end)
        if all(end is None or end.state in (S.CLOSED, S.TIME_WAIT) for end in ends) and ends[1] is not None:
            break
    for i in (0, 1):
        assert written[1 - i].startswith(read[i])
        if not violent:
            assert read[i] == written[1 - i]
            assert ends[i] is not None
            assert ends[i].state in (S.CLOSED, S.TIME_WAIT)  # type: ignore[union-attr]
