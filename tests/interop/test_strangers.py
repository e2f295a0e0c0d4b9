"""Peers at new or borrowed addresses get through a flood, as often as with wireguard-go beside it: counts, no times."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from statistics import mean
from typing import Final

import pytest

from benchmarks.floods import WINDOW_PEERS, newcomers, spoofed, window
from benchmarks.goals import OLD_GO, WGPY
from benchmarks.tunnels import PROGRAMS
from tests.support.netns import require_root

pytestmark = [pytest.mark.root, pytest.mark.quiet]
ATTEMPTS: Final = 4  # of which one must do, for others have work on this machine, too


@pytest.fixture(autouse=True)
def needed() -> None:
    require_root()
    for tool in ("wg", "ping", "wireguard-go"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")


def once(holds: Callable[[], bool]) -> bool:
    return any(holds() for _ in range(ATTEMPTS))


def test_a_flood_from_a_peers_address_harms_it_no_more_than_with_wireguard_go() -> None:
    assert once(lambda: spoofed(PROGRAMS[WGPY]) >= spoofed(PROGRAMS[OLD_GO]) > 0)


@pytest.mark.parametrize(("rate", "tries"), [(12_000, 2), (60_000, 4)])
def test_new_peers_connect_during_a_flood_while_a_tunnel_is_in_use(rate: int, tries: int) -> None:
    assert once(lambda: mean(newcomers(PROGRAMS[WGPY], rate)) <= tries)


def test_two_thousand_peers_behind_one_address_are_all_answered() -> None:
    assert once(lambda: window(PROGRAMS[WGPY]) == WINDOW_PEERS)
