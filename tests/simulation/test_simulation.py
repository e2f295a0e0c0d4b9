"""A thousand simulated hours of bad luck; and tests that each invariant notices the fault it is for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import count, cycle
from math import inf
from typing import Any

import pytest
from hypothesis import settings

import wgpy.burst
import wgpy.stack.tcp.connection
from tests.simulation.__main__ import main
from tests.simulation.simulation import Breach, Simulation
from tests.simulation.streams import RESTARTED, WHOLE
from tests.support.workers import Workers
from wgpy.constants import MAX_STAGED_PACKETS
from wgpy.device.deadlines import Deadlines
from wgpy.device.indextable import IndexTable
from wgpy.device.keypair import Keypair
from wgpy.device.peer import Peer
from wgpy.device.replay import ReplayWindow
from wgpy.device.share import Foreign
from wgpy.device.timers import Timers
from wgpy.stack.tcp.receiving import Receiver
from wgpy.stack.tcp.sending import Sender

# Under --hypothesis-profile=brief one seed is enough: the others look for faults of the protocol, not of a Python.
SEEDS = range(1 if settings.get_current_profile_name() == "brief" else 10)
HOURS = 100


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hundred_simulated_hours_pass_without_a_violation(seed: int) -> None:
    simulation = Simulation(seed)
    simulation.run(HOURS)
    assert simulation.checker.delivered > simulation.sent / 2
    assert len(simulation.counts) == 11
    assert min(simulation.counts.values()) > 10, "every kind of incident has happened, more than once"
    outcomes = simulation.streams.outcomes
    assert outcomes.count(WHOLE) > len(outcomes) / 3
    assert {"ETIMEDOUT", RESTARTED} & set(outcomes), "some streams did not outlive what happened"
    if isinstance(workers := simulation.server.device, Workers):
        assert workers.status().handed_over > 0


def test_a_seed_gives_the_same_run_each_time() -> None:
    digests = []
    for seed in (7, 7, 8):
        simulation = Simulation(seed)
        simulation.run(3)
        digests.append(simulation.digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_failing_seed_is_named_and_fails_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising(self: ReplayWindow, counter: int) -> bool:
        if counter == 9:
            raise ZeroDivisionError("a device must never raise")
        return accept(self, counter)

    accept = ReplayWindow.accept
    for broken in (raising, lambda self, counter: True):
        monkeypatch.setattr(ReplayWindow, "accept", broken)
        monkeypatch.setattr(sys, "argv", ["simulation", "--minutes", "60"])  # until it fails, on a slow machine too
        said = []
        for _ in range(2):
            assert main() == 1
            said.append(capsys.readouterr().out.splitlines())
            monkeypatch.setattr(sys, "argv", said[0][-1].removeprefix("again: python -m ").split())
        first, *_, again = said[0]
        assert first.startswith("seed ")
        assert again.startswith("again: python -m tests.simulation --seed ")
        assert said[0][-len(said[1]) :] == said[1]  # seeds that went well may come before it


def breach(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, value: Any) -> str:
    """The message of the invariant that notices a faulty part."""
    monkeypatch.setattr(owner, name, value)
    with pytest.raises(AssertionError) as caught:
        Simulation(1).run(HOURS)
    return str(caught.value)


def test_a_packet_delivered_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "or twice" in breach(monkeypatch, ReplayWindow, "accept", lambda self, counter: True)


def test_a_counter_used_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    seal = Keypair.seal

    def forgetful(self: Keypair, burst: Any) -> None:
        seal(self, burst)
        self.send_counter = max(0, self.send_counter - 1) if self.send_counter == 3 else self.send_counter

    assert "a nonce is used once" in breach(monkeypatch, Keypair, "seal", forgetful)


def test_keys_that_live_too_long_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def derived(self: Timers, now: float) -> None:
        self.zero_key_material_at = now + 600

    assert "has keys of" in breach(monkeypatch, Timers, "session_derived", derived)


def test_lengths_that_reveal_the_packets_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "rounded" in breach(monkeypatch, wgpy.burst, "padded_length", lambda length, mtus: length)


def test_an_index_that_is_reused_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    init, starts = IndexTable.__init__, count(step=100)

    def cycling(self: IndexTable[Any], draw: Callable[[], int]) -> None:
        start = next(starts)
        init(self, partial(next, cycle(range(start, start + 100))))

    assert "indices are fresh" in breach(monkeypatch, IndexTable, "__init__", cycling)


def test_indices_that_are_never_freed_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "stand for nothing" in breach(monkeypatch, IndexTable, "remove", lambda self, index: None)


def test_deadlines_that_pile_up_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    enter = Deadlines._enter

    def hoarding(self: Deadlines, peer: Peer, at: float) -> None:
        enter(self, peer, at)
        self._heap += [(inf, next(self._tiebreak), peer) for _ in range(100)]

    assert "deadlines to wait for" in breach(monkeypatch, Deadlines, "_enter", hoarding)


def test_a_tunnel_that_does_not_recover_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has forgotten the sessions, and nobody wonders why nothing comes back."""
    simulation = Simulation(1)
    simulation.calm()
    simulation.start_anew(simulation.server)
    simulation.calm()
    sent = Timers.sent
    monkeypatch.setattr(Timers, "sent", lambda self, now, *, data: sent(self, now, data=False))
    simulation.start_anew(simulation.server)
    with pytest.raises(Breach, match="has not reached"):
        simulation.calm()


def test_a_source_that_is_not_the_peers_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(1)
    server = simulation.server.device
    lookup = server._allowed_ips.lookup
    last: list[Peer] = []

    def careless(address: bytes) -> Peer | Foreign | None:
        """Whoever the packet says it is from: the peer that spoke last."""
        peer = lookup(address)
        return next((p for p in server._peers.values() if p is not peer and p.keypairs.current), peer) if last else peer

    monkeypatch.setattr(server._allowed_ips, "lookup", careless)
    last.extend(server._peers.values())
    with pytest.raises(Breach):
        simulation.run(HOURS)


def test_unbounded_staging_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(1)
    simulation.pass_time(1)
    client = simulation.clients[0]
    (peer,) = client.device._peers.values()
    for _ in range(MAX_STAGED_PACKETS):
        simulation.send(client, simulation.server)
    simulation.checker.check()
    peer.staged.append(peer.staged[0])
    with pytest.raises(Breach, match="stages too much"):
        simulation.checker.check()


def test_bytes_of_a_stream_that_come_twice_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    fill = Receiver._fill

    def careless(self: Receiver) -> None:
        """What was behind a gap is taken as it lies, whatever of it has come since."""
        for block in self._blocks:
            block.start = max(block.start, self.next)
        fill(self)

    assert "was not written" in breach(monkeypatch, Receiver, "_fill", careless)


def test_an_end_of_a_stream_that_comes_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Receiver.take

    def hasty(self: Receiver, start: int, payload: bytes, *, is_last: bool, now: float) -> bool:
        """A FIN ends it, whatever has not come."""
        return take(self, *((self.next, b"") if is_last else (start, payload)), is_last=is_last, now=now)

    assert "before the end" in breach(monkeypatch, Receiver, "take", hasty)


def test_a_stream_that_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hangs in" in breach(monkeypatch, Sender, "timed_out", lambda self, now: setattr(self, "timeout_at", inf))


def test_connections_that_are_never_forgotten_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wgpy.stack.tcp.connection, "TIME_WAIT", 1e9)
    with pytest.raises(Breach, match="of streams that have ended"):
        Simulation(1).run(HOURS)
