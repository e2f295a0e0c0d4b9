"""What only PostgreSQL has: several that write at once, connections that are lost, nodes, and its URLs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from tests.support.postgres import Postgres
from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.policy.people import Group
from wgpy.gateway.store import audit, devices, endpoint, groups
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.postgresql import PostgreSQL, _security
from wgpy.keys import PresharedKey, PublicKey
from wgpy.labs.traffic import wait_for

pytestmark = pytest.mark.peer

in_postgresql = pytest.mark.parametrize("both_kinds", ["postgresql"], indirect=True)


@in_postgresql
def test_gateways_that_add_devices_at_once_never_give_away_an_address_twice(
    database: Database, place: str, tmp_path: Path
) -> None:
    with database.change("root") as change:
        wider = (ip_network("10.98.0.0/24"), *endpoint.find(change.connection).pools)
        endpoint.replace(change, replace(endpoint.find(change.connection), pools=wider))
    nodes = [Database(place, tmp_path / "gateway.key", node=name) for name in "ab"]

    def add(number: int) -> None:
        with nodes[number % 2].change("root") as change:
            devices.add(change, f"d{number}", "alice", PublicKey(bytes([number]) * 32), PresharedKey(bytes(32)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(1, 41)))
    with database.read() as connection:
        found = devices.find_all(connection)
        numbers = [entry["id"] for entry in audit.find_last(connection, 100)]
    assert len(found) == 40
    assert len({address for device in found for address in device.addresses}) == 80
    assert numbers == [*range(numbers[0], numbers[0] + len(numbers))], "in the order of the commits"
    for node in nodes:
        node.close()


@in_postgresql
def test_a_watch_that_was_cut_off_says_so_and_then_that_there_was_a_change(
    database: Database, postgresql: Postgres
) -> None:
    watch = database.watch()
    assert not watch.changed()
    postgresql.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'gateway'")
    assert wait_for(lambda: lost(watch.changed))
    assert watch.changed()
    assert not watch.changed()
    with database.change("root") as change:
        groups.add(change, Group(name="new"))
    assert wait_for(watch.changed)


def lost(changed: object) -> bool:
    try:
        changed()  # type: ignore[operator]
    except ControlError:
        return True
    return False


@in_postgresql
def test_a_node_runs_once_and_others_beside_it(database: Database, place: str, tmp_path: Path) -> None:
    key = tmp_path / "gateway.key"
    with (
        closing(Database(place, key, node="a")) as one,
        closing(Database(place, key, node="a")) as again,
        closing(Database(place, key, node="b")) as other,
    ):
        with one.running():
            assert again.is_running()
            assert not other.is_running()
            with pytest.raises(ControlError, match="node a runs already"), again.running():
                pass
            with other.running():
                assert other.is_running()
        assert not again.is_running()


@in_postgresql
def test_a_node_is_free_at_its_end_though_the_server_notices_later_that_it_hung_up(
    database: Database, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a busy server does: a gateway that was restarted at once would hear that the node runs already."""
    key, open_yet = tmp_path / "gateway.key", list[psycopg.Connection]()
    with closing(Database(place, key, node="a")) as one, closing(Database(place, key, node="a")) as again:
        with monkeypatch.context() as late, one.running():
            late.setattr(psycopg.Connection, "close", lambda connection: open_yet.append(connection))
        with again.running():
            assert open_yet
    for connection in open_yet:
        connection.close()


@in_postgresql
def test_another_that_writes_for_long_is_waited_for_and_then_named(
    database: Database, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PostgreSQL.__init__.__globals__["_SERVER"], "lock_timeout", 50)
    with (
        closing(Database(place, tmp_path / "gateway.key")) as impatient,
        database.change("root"),
        pytest.raises(ControlError, match=r"lock timeout; another gateway or command is writing.*nothing was changed"),
        impatient.change("root"),
    ):
        pass


@in_postgresql
def test_a_process_that_stood_still_amid_a_transaction_is_told_why_it_was_cut_off(database: Database) -> None:
    """As one that is suspended: the server ends its transaction, so that others may write."""

    def stand_still() -> None:
        with database.read() as connection:
            connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 1")
            time.sleep(0.2)  # the server waits for nothing else
            groups.find_all(connection)

    with pytest.raises(ControlError, match="idle-in-transaction timeout; nothing was changed"):
        stand_still()


@in_postgresql
def test_all_gateways_go_by_the_clock_of_the_database(
    database: Database, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database.is_shared
    true = time.time
    with closing(Database(place, tmp_path / "gateway.key")) as behind:
        monkeypatch.setattr("time.time", lambda: true() - 7200)
        with behind.change("root") as change:
            assert abs(change.now - true()) < 60
        assert abs(behind.clock() - true()) < 60


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://wgpy@db.example.org/wgpy", {"sslmode": "verify-full", "sslrootcert": "system"}),
        ("postgresql://wgpy@db.example.org/wgpy?sslrootcert=/etc/ca.pem", {"sslmode": "verify-full"}),
        ("postgresql://wgpy@db.example.org/wgpy?sslmode=disable", {}),
        ("postgresql://wgpy@localhost/wgpy", {}),
        ("postgresql:///wgpy?host=/run/postgresql", {}),
        ("postgresql:///wgpy?hostaddr=203.0.113.5", {"sslmode": "verify-full", "sslrootcert": "system"}),
        ("postgresql:///wgpy?host=/run,db.example.org", {"sslmode": "verify-full", "sslrootcert": "system"}),
    ],
)
def test_a_server_elsewhere_must_have_a_certificate_unless_the_url_says_otherwise(
    url: str, expected: dict[str, str]
) -> None:
    assert _security(make_url(url)) == expected


@pytest.mark.parametrize(
    "url", ["postgresql://u:s3cret@h/d", "postgresql://u@h/d?password=s3cret", "mysql://u@h/d", "?"]
)
def test_a_url_that_has_a_password_or_is_none_is_refused_without_it(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        PostgreSQL(url)
    assert "s3cret" not in str(error.value)
