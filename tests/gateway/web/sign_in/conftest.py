"""A site with Alice, who has a password, and a clock that tests turn. Hashing costs little here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.gateway.web.conftest import Running
from tests.gateway.web.sign_in.person import URL, Person
from wgpy.gateway.identity import passwords, totp
from wgpy.gateway.store import credentials, endpoint
from wgpy.gateway.store.database import Database
from wgpy.gateway.web.site import Site

PASSWORD, SEED = "four plain words here", b"12345678901234567890"
CODES = ["aaaa-bbbb-cccc-dddd", "eeee-ffff-gggg-hhhh"]


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(database: Database, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Site:
    """At https://vpn.example.org; Alice has a password, and nothing beside it."""
    monkeypatch.setattr(passwords, "MEMORY", 64)
    monkeypatch.setattr(database, "clock", clock)
    with database.change("root") as change:
        endpoint.replace(change, replace(endpoint.find(change.connection), url=URL))
        settings = endpoint.find(change.connection)
    made = Site(database=database, service=Running(settings), wall=clock)
    with database.change("root") as change:
        change.now = clock.now - 1
        credentials.set_password(change, "alice", made.hasher.hash(PASSWORD))
    return made


@pytest.fixture
def alice(site: Site) -> Person:
    return Person(site)


@pytest.fixture
def app(site: Site, clock: Clock) -> str:
    """Gives Alice an authenticator app and recovery codes. Returns the app's seed."""
    with site.database.change("root") as change:
        credentials.set_totp(change, "alice", SEED, 0, CODES)
    return totp.text(SEED)
