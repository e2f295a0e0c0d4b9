"""A gateway's database in a temporary directory."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.store import endpoint, groups, users
from wgpy.gateway.store.database import Database
from wgpy.keys import PrivateKey


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A new database with an endpoint, two groups, and Alice, who is in one of them."""
    made = Database.create(tmp_path / "gateway.db", tmp_path / "gateway.key", clock=lambda: 1000.0)
    settings = Endpoint(
        host="vpn.example.org", pools=(ip_network("10.99.0.0/29"), ip_network("fd00:99::/64")), session_max=8 * 3600
    )
    with made.change("root") as change:
        endpoint.add(change, settings, PrivateKey.generate())
        for name in ("staff", "ops"):
            groups.add(change, Group(name=name))
        users.add(change, User(name="alice", groups=frozenset({"staff"})))
    yield made
    made.close()
