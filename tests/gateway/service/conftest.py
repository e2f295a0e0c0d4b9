"""A gateway with one phone, in a world that only remembers."""

from __future__ import annotations

import pytest

from tests.gateway.service.world import KEY, World, start
from wgpy.gateway.service.gateway import Gateway
from wgpy.gateway.store import devices
from wgpy.gateway.store.database import Database
from wgpy.keys import PresharedKey


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def phone(database: Database) -> Database:
    """A database with Alice's phone."""
    with database.change("root") as change:
        devices.add(change, "phone", "alice", KEY, PresharedKey(bytes(range(32))))
    return database


@pytest.fixture
def gateway(phone: Database, world: World) -> Gateway:
    return start(phone, world)
