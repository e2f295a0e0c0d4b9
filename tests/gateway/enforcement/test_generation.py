"""A table that nobody has changed is not listed again, which costs a lot where it is large."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address, ip_network

import pytest

from tests.support.netns import in_fresh_namespace
from wgpy.daemon import firewall as daemon
from wgpy.gateway.enforcement.generation import generation
from wgpy.gateway.enforcement.nft import Firewall
from wgpy.gateway.policy.compiler import compiled

pytestmark = pytest.mark.root
NOTHING = compiled([], {})
POOLS = [ip_network("10.99.0.0/24")]


def nft(*words: str) -> None:
    subprocess.run(["nft", *words], check=True)


@in_fresh_namespace
def test_each_transaction_of_nftables_is_one_more_generation() -> None:
    before = generation()
    nft("add", "table", "inet", "a")
    nft("-j", "list", "ruleset")
    nft("delete", "table", "inet", "a")
    assert generation() == before + 2


@in_fresh_namespace
def test_a_table_is_listed_again_only_if_somebody_else_has_changed_nftables(monkeypatch: pytest.MonkeyPatch) -> None:
    firewall, listed = Firewall("wg0", 51820), []
    ran = daemon.run

    def run(command: list[str], *rest: object) -> str:
        listed.extend([command] if "list" in command else [])
        return ran(command, *rest)  # type: ignore[arg-type]

    firewall.replace(POOLS, NOTHING, [])
    monkeypatch.setattr("wgpy.gateway.enforcement.nft.run", run)
    firewall.admit({ip_address("10.99.0.2"): 99})
    assert firewall.exists()
    assert listed == []
    firewall.replace(POOLS, NOTHING, [])
    assert len(listed) == 1, "what it looks like now"
    nft("add", "table", "inet", "another")
    for _ in range(2):
        assert firewall.exists()
        assert len(listed) == 3
    nft("flush", "chain", "inet", "wgpy-gateway-wg0", "judge")
    assert not firewall.exists()
