"""Micro-benchmarks of the data path, for 44 packets of 1,420 bytes or a lone one: pytest benchmarks/test_stages.py"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.stages import MSS, NAMES, SEGMENTS, Stages

ROUNDS = 2000


@pytest.fixture(scope="module")
def stages() -> Stages:
    return Stages()


@pytest.mark.parametrize("name", NAMES)
def test_stage(name: str, stages: Stages, benchmark: Any) -> None:
    prepare, act = stages.by_name[name]
    benchmark.pedantic(act, setup=lambda: ((prepare(),), {}), rounds=ROUNDS, warmup_rounds=50)


def test_small_super_packets_become_a_burst_for_each_destination(stages: Stages) -> None:
    assert sorted(map(len, stages.gathered())) == [4, 4, 6, 6, 6, 6, 6, 6]


def test_the_stages_carry_the_payload(stages: Stages) -> None:
    assert bytes(stages.opened(stages.sealed()).packet(SEGMENTS - 1))[52:] == b"p" * MSS
