"""Header prediction does what the long way does, with fewer steps: each segment it takes is given to a twin as well."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.stack.line import PORT, Faults, Line, transfer
from tests.stack.peer import drain, make_host, opened, segment
from wgpy.stack.tcp import acceptance
from wgpy.stack.tcp.connection import Connection
from wgpy.stack.tcp.framing import Framing
from wgpy.stack.tcp.header import ACK, ECE, FIN, Segment
from wgpy.stack.tcp.state import State

EXCHANGES = 15


class Twins:
    """Counts the segments that were predicted and those that were not, and compares what became of the former."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.predicted = self.others = 0
        arrive, takes_short_way = Connection.arrive, acceptance.is_expected
        was_expected, is_allowed = False, True

        def is_expected(*parts: Any) -> bool:
            nonlocal was_expected
            was_expected = is_allowed and takes_short_way(*parts)
            return was_expected

        def compare(connection: Connection, segment: Segment, now: float) -> bool:
            nonlocal was_expected, is_allowed
            twin, was_expected = deepcopy(connection), False
            belonged = arrive(connection, segment, now)
            self.predicted += was_expected
            self.others += not was_expected
            if was_expected:
                is_allowed = False
                assert arrive(twin, segment, now) == belonged
                is_allowed = True
                assert told(connection) == told(twin)
            return belonged

        monkeypatch.setattr(Connection, "arrive", compare)
        monkeypatch.setattr("wgpy.stack.tcp.connection.is_expected", is_expected)


def told(thing: Any) -> Any:
    """All that a connection knows, to be compared."""
    if isinstance(thing, list):
        return [told(part) for part in thing]
    names = {name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())}
    return {name: told(getattr(thing, name)) for name in sorted(names)} if names else thing


class Talk:
    """Requests and their answers, one after the other, over one connection."""

    def __init__(self, line: Line) -> None:
        self.line = line
        listener = line.hosts[1].listen(None, PORT)
        client = line.hosts[0].connect(line.addresses[1], PORT, line.now)
        line.run(lambda: listener.waiting)
        server = line.hosts[1].accept(listener)
        assert server is not None
        self.ends = [client, server]

    def exchange(self, request: bytes, answer: bytes) -> None:
        self._say(0, request)
        self._say(1, answer)

    def _say(self, number: int, data: bytes) -> None:
        came = bytearray()

        def work() -> bool:
            while part := self.ends[1 - number].read():
                came.extend(part)
            self.line.hosts[1 - number].wake(self.ends[1 - number])
            self.line.flush()
            return len(came) == len(data)

        self.ends[number].write(data)
        self.line.hosts[number].wake(self.ends[number])
        self.line.run(work)
        assert came == data


@pytest.mark.parametrize("has_stamps", [True, False])
@pytest.mark.parametrize(
    "faults",
    [Faults(), Faults(loss=0.1, repeat=0.1, late=0.2), Faults(late=0.3, burst=True)],
    ids=["clean", "lossy", "late"],
)
def test_the_short_way_ends_where_the_long_way_does(
    monkeypatch: pytest.MonkeyPatch, faults: Faults, has_stamps: bool
) -> None:
    if not has_stamps:
        monkeypatch.setattr(Framing, "stamp", lambda self, now: None)
    twins = Twins(monkeypatch)
    for seed in range(2):
        transfer(Line(seed, faults), bytes(15_000), bytes(15_000))
        talk = Talk(Line(seed, faults))
        for number in range(EXCHANGES):
            talk.exchange(bytes(10 + number), bytes(100 * number**2 + 1))  # of one segment, then of several
    assert twins.predicted > EXCHANGES // 4


def test_a_conversation_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request and each answer of one segment: else the short way saves nothing."""
    twins = Twins(monkeypatch)
    talk = Talk(Line())
    twins.others = 0
    for _ in range(EXCHANGES):
        talk.exchange(b"what is asked", b"what is answered")
    assert twins.predicted >= 2 * EXCHANGES
    assert not twins.others


def test_a_conversation_is_predicted_again_when_a_loss_was_repaired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it would be slow for ever after, for its window could still be given back."""
    twins, line = Twins(monkeypatch), Line()
    talk = Talk(line)
    client, server = talk.ends
    talk.exchange(b"what is asked", b"what is answered")
    line.faults.loss = 1.0
    for part in (b"what ", b"is ", b"asked"):  # the first is lost
        client.write(part)
        line.hosts[0].wake(client)
        line.flush()
        line.faults.loss = 0.0
    line.run(lambda: server.receiver.unread_size == len("what is asked"))
    while server.read():
        pass
    talk.exchange(b"what is asked", b"what is answered")
    assert not client.sender.is_recovering
    assert client.sender._repetitions.saved is not None
    twins.others = 0
    for _ in range(EXCHANGES):
        talk.exchange(b"what is asked", b"what is answered")
    assert not twins.others


@pytest.mark.parametrize("what", ["sacked", "lost", "_recovery_end", "_probe_end"])
def test_a_loss_that_is_being_repaired_goes_the_long_way(what: str) -> None:
    sender = Talk(Line()).ends[0].sender
    assert sender.is_calm
    setattr(sender, what, 1)
    assert not sender.is_calm


def test_data_before_an_end_that_came_first_closes_the_peers_side() -> None:
    host = make_host()
    connection = opened(host)
    upto = connection.framing.number(connection.sender.next)
    host.receive(segment(4, upto, FIN | ACK), 0.0)
    host.receive(segment(1, upto, ACK, b"abc"), 0.0)
    assert connection.state is State.CLOSE_WAIT


def test_data_with_a_congestion_mark_is_answered_by_an_echo_of_it() -> None:
    host = make_host()
    connection = opened(host)
    connection.marks.takes_part = True
    connection.arrive(Segment(1, connection.framing.number(1), ACK, 65535, b"", b"abc", 1, True), 0.0)
    host.wake(connection)
    (answer,) = drain(host)
    assert answer[33] & ECE
