"""10,000 devices, 1,000 groups, 200 rules, 100,000 entries of each log: a page costs a few queries and stays small."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, insert

from tests.gateway.web.console.conftest import ADMIN, Person, session_row
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.store import rules
from wgpy.gateway.store import users as users_of
from wgpy.gateway.store.schema import audit, devices, groups, leases, sessions, users
from wgpy.gateway.web.site import Site
from wgpy.keys import PublicKey

DEVICES, ENTRIES = 10_000, 100_000
GROUPS, RULES, OWN = 1000, 200, 40  # OWN devices are the administrator's
POOL = ip_address("10.99.0.0")

pytestmark = pytest.mark.xdist_group("scale")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves its database for the others: to make it takes longer than to look at it."""
    return tmp_path_factory.mktemp("large") / "gateway.db"


@pytest.fixture
def filled(filled: Site, saved: Path) -> Site:
    """A site with very many of everything."""
    place = Path(filled.database.name)
    if saved.exists():
        shutil.copy(saved, place)
    else:
        enlarge(filled)
        shutil.copy(place, saved)
    return filled


def enlarge(filled: Site) -> None:
    entry = session_row("x", "dev-7", "user-7", 0.0, "idle")["entry"]
    with filled.database.change("root") as change:
        execute = change.connection.execute
        execute(insert(groups), [{"name": f"group-{n}", "description": ""} for n in range(GROUPS)])
        for n in range(RULES):
            where = Destination.parse(f"10.60.{n}.0/24")
            rules.add(change, Rule(name=f"r{n}", destination=where, groups=frozenset({"admins", f"group-{n}"})))
        execute(insert(users), [{"name": f"user-{n}", "enabled": True, "expired": False} for n in range(DEVICES)])
        keys = [PublicKey((n + 9).to_bytes(32)).base64() for n in range(DEVICES)]
        execute(insert(devices), [
            {"name": f"dev-{n}", "user": ADMIN if n < OWN else f"user-{n}", "public_key": key, "preshared_key": b"",
             "enabled": True}
            for n, key in enumerate(keys)
        ])  # fmt: skip
        execute(insert(leases), [{"address": str(POOL + 256 + n), "public_key": keys[n]} for n in range(DEVICES)])
        execute(insert(sessions), [
            {"id": f"{n:016x}", "device": f"dev-{n % DEVICES}", "user": f"user-{n % DEVICES}", "started_at": n / 100,
             "ended_at": n / 100 + 1 if n < ENTRIES - DEVICES else None, "reason": "idle", "entry": entry}
            for n in range(ENTRIES)
        ])  # fmt: skip
        execute(insert(audit), [
            {"at": n / 100, "who": "root", "kind": "user", "name": f"user-{n % DEVICES}", "before": None, "after": {}}
            for n in range(ENTRIES)
        ])  # fmt: skip


@pytest.fixture
def queries() -> Iterator[list[str]]:
    """The statements that are executed, of all connections."""
    found: list[str] = []

    def note(*arguments: object) -> None:
        if arguments[2] != "BEGIN":
            found.append(str(arguments[2]))

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


def test_each_page_costs_a_few_queries_and_stays_small(admin: Person, queries: list[str]) -> None:
    for path in (
        "", "/now", "/users", "/users?page=100", "/users?search=user-9", "/users/user-77", "/add/user",
        "/devices?search=dev-99", "/devices?page=200",
        "/devices/dev-77", "/groups/staff", "/groups?page=20",
        "/groups?search=group-9", "/groups/admins", "/rules", "/rules?page=4", "/rules/r7", "/routes", "/tokens",
        "/sessions?page=100", "/log", "/log?page=2000",
        "/log?reason=idle&search=dev-77", "/audit?page=2000", "/audit?search=user-77", "/test", "/add/device",
    ):  # fmt: skip
        queries.clear()
        found = admin.get(path)
        assert found.status_code == 200, path
        assert len(found.content) < 100_000, path
        assert len(queries) <= 25, (path, queries)
    assert f"of {DEVICES + 2}" in admin.get("/devices").text
    assert "web" not in admin.get("/log?page=2000").text.split("<main")[1]
    now = json.loads(admin.get("/now").content)
    assert now["rows"].count("<tr") == 10
    assert now["texts"]["sessions"] == str(DEVICES + 1)


def test_a_persons_pages_cost_a_few_queries_however_many_devices_and_rules_there_are(
    admin: Person, queries: list[str]
) -> None:
    for path in ("/", "/reach", "/devices/add", "/account"):
        queries.clear()
        found = admin.client.get(path)
        assert found.status_code == 200, path
        assert len(found.content) < 100_000, path
        assert len(queries) <= 15, (path, queries)


def test_where_there_are_very_many_groups_they_are_typed(admin: Person, filled: Site) -> None:
    admin.save("/users/user-77", {"group": ["group-7"], "more_groups": "group-8, group-900"})
    with filled.database.read() as connection:
        assert users_of.find(connection, "user-77").groups == {"group-7", "group-8", "group-900"}
    said = admin.save("/users/user-77", {"group": ["group-7"], "more_groups": "group-8, nonsense"}).text
    assert "nonsense" in said
    assert 'value="group-8"' in said, "what was right is kept"
