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


class Suspicious:
    """A watch that always says that there was a change: PostgreSQL's tells of one within a moment, and not at once."""

    def changed(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def phone(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database with Alice's phone."""
    if database.is_shared:
        monkeypatch.setattr(database, "watch", Suspicious)
    with database.change("root") as change:
        devices.add(change, "phone", "alice", KEY, PresharedKey(bytes(range(32))))
    return database


@pytest.fixture
def gateway(phone: Database, world: World) -> Gateway:
    return start(phone, world)
