"""A thousand hours of bad luck in a minute or two; and each invariant shown to notice what it is there for."""

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
from tests.simulation.__main__ import main
from tests.simulation.life import Breach, Life
from wgpy.constants import MAX_STAGED_PACKETS
from wgpy.device.deadlines import Deadlines
from wgpy.device.indextable import IndexTable
from wgpy.device.keypair import Keypair
from wgpy.device.peer import Peer
from wgpy.device.replay import ReplayWindow
from wgpy.device.timers import Timers

# Under --hypothesis-profile=brief one life is enough: the others look for faults of the protocol, not of a Python.
SEEDS = range(1 if settings.get_current_profile_name() == "brief" else 10)
HOURS = 100


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hundred_hours(seed: int) -> None:
    life = Life(seed)
    life.live(HOURS)
    assert life.witness.delivered > life.sent / 2
    assert len(life.happened) == 9
    assert min(life.happened.values()) > 10, "all that can happen has, more than once"


def test_a_seed_tells_the_same_story_each_time() -> None:
    stories = []
    for seed in (7, 7, 8):
        life = Life(seed)
        life.live(3)
        stories.append(life.digest)
    assert stories[0] == stories[1] != stories[2]


def test_a_failing_seed_is_told_and_fails_again(
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
        assert said[0][-len(said[1]) :] == said[1]  # before it there may be stories that went well


def breach(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, value: Any) -> str:
    """What is noticed when a part does its work badly."""
    monkeypatch.setattr(owner, name, value)
    with pytest.raises(AssertionError) as caught:
        Life(1).live(HOURS)
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


def test_lengths_that_tell_the_packets_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "rounded" in breach(monkeypatch, wgpy.burst, "padded_length", lambda length, mtus: length)


def test_an_index_that_comes_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    init, starts = IndexTable.__init__, count(step=100)

    def cycling(self: IndexTable[Any], draw: Callable[[], int]) -> None:
        start = next(starts)
        init(self, partial(next, cycle(range(start, start + 100))))

    assert "indices are fresh" in breach(monkeypatch, IndexTable, "__init__", cycling)


def test_indices_that_are_never_freed_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "stand for nothing" in breach(monkeypatch, IndexTable, "remove", lambda self, index: None)


def test_deadlines_that_pile_up_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    note = Deadlines.note

    def hoarding(self: Deadlines, peer: Peer) -> None:
        note(self, peer)
        self._heap += [(inf, next(self._tiebreak), peer) for _ in range(100)]

    assert "deadlines to wait for" in breach(monkeypatch, Deadlines, "note", hoarding)


def test_a_tunnel_that_does_not_recover_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has forgotten the sessions, and nobody wonders why nothing comes back."""
    life = Life(1)
    life.calm()
    life.start_anew(life.server)
    life.calm()
    monkeypatch.setattr(Timers, "data_sent", lambda self, now: None)
    life.start_anew(life.server)
    with pytest.raises(Breach, match="has not reached"):
        life.calm()


def test_a_source_that_is_not_the_peers_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(1)
    server = life.server.device
    lookup = server._allowed_ips.lookup
    last: list[Peer] = []

    def careless(address: bytes) -> Peer | None:
        """Whoever the packet says it is from: the peer that spoke last."""
        peer = lookup(address)
        return next((p for p in server._peers.values() if p is not peer and p.keypairs.current), peer) if last else peer

    monkeypatch.setattr(server._allowed_ips, "lookup", careless)
    last.extend(server._peers.values())
    with pytest.raises(Breach):
        life.live(HOURS)


def test_what_is_staged_without_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(1)
    life.pass_time(1)
    client = life.clients[0]
    (peer,) = client.device._peers.values()
    for _ in range(MAX_STAGED_PACKETS):
        life.send(client, life.server)
    life.witness.check()
    peer.staged.append(peer.staged[0])
    with pytest.raises(Breach, match="stages too much"):
        life.witness.check()
