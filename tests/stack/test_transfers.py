"""Bytes through bad lines: whatever is lost, late, repeated or corrupted, both ends get what the other wrote."""

from __future__ import annotations

import random

import pytest

from tests.stack.line import Faults, Line, digest, transfer


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("burst", [False, True])
def test_a_clean_line_carries_data_both_ways(v6: bool, burst: bool) -> None:
    up, down = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(1_000_001)
    line = Line(faults=Faults(burst=burst), v6=v6)
    one, other = transfer(line, up, down)
    assert digest(other.received) == digest(up)
    assert digest(one.received) == digest(down)
    assert one.connection is not None
    assert one.connection.error is None
    assert sum(host.drops.total() for host in line.hosts) == 0


@pytest.mark.parametrize("seed", range(60))
def test_transfers_survive_bad_lines(seed: int) -> None:
    chance = random.Random(seed)
    faults = Faults(
        loss=chance.choice([0.0, 0.01, 0.05, 0.2]),
        repeat=chance.choice([0.0, 0.05]),
        late=chance.choice([0.0, 0.1, 0.5]),
        corrupt=chance.choice([0.0, 0.02]),
        burst=chance.random() < 0.5,
    )
    up, down = (chance.randbytes(chance.choice([0, 1, 5000, 200_000, 1_000_000])) for _ in range(2))
    line = Line(seed, faults, v6=bool(seed & 1))
    one, other = transfer(line, up, down, limit=900)
    assert digest(other.received) == digest(up)
    assert digest(one.received) == digest(down)
