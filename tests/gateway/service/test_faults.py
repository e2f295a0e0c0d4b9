"""What fails beneath the service: nft, the database, the disk, the clocks, the process; and what others break."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import cast

import pytest

from tests.gateway.service.world import HOUR, PHONE, World, last, send, set_endpoint, sign_in_phone, start
from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.enforcement.nft import Firewall
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.service.clocks import SKEW
from wgpy.gateway.service.gateway import GRACE, MEASURED, RETRY, Gateway
from wgpy.gateway.service.metrics import GatewayMetrics
from wgpy.gateway.store import devices, rules, sessions
from wgpy.gateway.store.database import Database

in_sqlite = pytest.mark.parametrize("both_kinds", ["sqlite"], indirect=True)


def test_sessions_outlive_the_process_and_nothing_else_does(gateway: Gateway, phone: Database, world: World) -> None:
    send(gateway)
    world.open[ip_address("10.99.0.6")] = (world.now + 99, 0)  # nobody knows of it
    world.pass_time(HOUR)
    again = start(phone, world)
    assert {*world.open} == {*PHONE}
    assert again.active == 1
    world.pass_time(7 * HOUR)
    again.tick()
    assert world.open == {}
    assert last(phone)["connection-duration-seconds"] == str(round(8 * HOUR))


def test_a_session_that_the_kernel_has_lost_ends(gateway: Gateway, phone: Database, world: World) -> None:
    send(gateway)
    world.open.clear()  # a reboot
    assert start(phone, world).active == 0
    assert last(phone)["connection-end-reason"] == "gateway-stopped"
    with phone.read() as connection:
        assert sessions.under_way(connection) == []


def test_when_nft_fails_nothing_opens_and_what_is_to_be_closed_is_closed_later(
    gateway: Gateway, phone: Database, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.refuses = "nft: no memory"
    send(gateway)
    gateway.tick()
    assert world.open == {}
    assert [record.getMessage() for record in caplog.records] == ["nft: no memory; trying again"]
    serving = GatewayMetrics(gateway, cast(Firewall, world), "127.0.0.1:0")
    assert serving.page(b"/readyz") == (503, b"nft: no memory\n")
    assert serving.page(b"/healthz") == (200, b"ok\n")
    world.refuses = ""
    gateway.tick()
    assert serving.page(b"/readyz") == (200, b"ok\n")
    assert serving.page(b"/metrics") is None
    world.pass_time(61)
    assert serving.page(b"/healthz") == (503, b"it has done nothing for 60 seconds\n")
    assert {*world.open} == {*PHONE}
    world.refuses = "nft: no memory"
    with phone.change("root") as change:
        devices.enable(change, "phone", enabled=False)
    gateway.tick()
    world.refuses = ""
    gateway.tick()
    assert world.open == {}


@in_sqlite
def test_while_another_process_holds_the_database_nothing_opens_and_what_is_to_be_closed_is(
    phone: Database, place: Path, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wgpy.gateway.store.sqlite._PATIENCE", 0.0)
    impatient = Database(place, tmp_path / "gateway.key", clock=lambda: 1000.0)
    gateway = start(impatient, world)
    with closing(sqlite3.connect(place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        send(gateway)
        assert world.open == {}
        assert "database is locked; another process holds it" in gateway.ailment
        other.execute("ROLLBACK")
        gateway.tick()
        assert {*world.open} == {*PHONE}
        with phone.change("root") as change:
            sessions.terminate(change, "phone")
        other.execute("BEGIN IMMEDIATE")
        gateway.tick()
        assert world.open == {}, "its end is in force, though it cannot be written down yet"
        other.execute("ROLLBACK")
        gateway.tick()
    assert gateway.ailment == ""
    assert last(phone)["connection-end-reason"] == "terminated"
    impatient.close()


def test_what_cannot_be_written_down_is_not_opened(
    gateway: Gateway, phone: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sessions, "write", fail)
        send(gateway)
        assert world.open == {}
    gateway.tick()
    assert {*world.open} == {*PHONE}


def fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_table_that_somebody_removes_is_made_again_with_the_sessions(gateway: Gateway, world: World) -> None:
    send(gateway)
    until = world.open[PHONE[0]][0]
    world.has_table, world.open = False, {}
    gateway.suspect({1})
    gateway.tick()
    assert world.has_table
    assert {*world.open} == {*PHONE}
    assert world.open[PHONE[0]][0] == until
    gateway.suspect({1})
    gateway.tick()
    assert world.open[PHONE[0]][0] == until


def test_a_table_that_is_gone_when_a_rule_is_to_be_put_in_force_gets_its_sessions_again(
    gateway: Gateway, phone: Database, world: World
) -> None:
    send(gateway)
    world.has_table, world.open = False, {}  # and the notice comes late
    with phone.change("root") as change:
        rules.add(change, Rule(name="all", destination=Destination.parse("10.0.0.0/8"), everyone=True))
    gateway.tick()
    gateway.tick()
    assert world.has_table
    assert {*world.open} == {*PHONE}


def test_it_does_not_run_where_the_host_has_a_network_in_a_pool(phone: Database, world: World) -> None:
    world.host = {"this host's route through eth0 to": [ip_network("10.99.0.0/16")]}
    with pytest.raises(ConfigError, match=r"pool 10\.99\.0\.0/29: overlaps this host's route through eth0 to 10\.99"):
        start(phone, world)
    assert not world.has_interface


def test_an_interface_that_is_gone_is_made_again_within_some_seconds(gateway: Gateway, world: World) -> None:
    world.has_interface = False
    world.pass_time(MEASURED)
    gateway.tick()
    assert world.has_interface
    assert len(world.followed) == 2
    world.pass_time(MEASURED)
    gateway.tick()
    assert len(world.followed) == 2


@pytest.mark.parametrize("sign_in", [False, True])
def test_a_restart_makes_no_session_longer_whatever_the_date_is(
    sign_in: bool, gateway: Gateway, phone: Database, world: World
) -> None:
    set_endpoint(phone, sign_in=sign_in)
    sign_in_phone(phone, world)
    gateway.tick()
    send(gateway)
    world.pass_time(HOUR)
    world.date -= HOUR + 2 * SKEW
    again = start(phone, world)
    assert again.active == (not sign_in)
    world.pass_time(7 * HOUR)
    again.tick()
    assert world.open == {}


def test_an_interface_that_is_not_ours_is_left_alone(phone: Database, world: World) -> None:
    world.is_strange, world.has_table = True, False
    with pytest.raises(ControlError, match="this interface exists"):
        start(phone, world)
    assert not world.has_table


def test_an_old_copy_of_the_table_that_somebody_loads_opens_nothing(gateway: Gateway, world: World) -> None:
    send(gateway)
    world.has_table = False
    world.open[ip_address("10.99.0.6")] = (world.now + 99, 0)
    gateway.suspect({1})
    gateway.tick()
    assert {*world.open} == {*PHONE}


def test_a_full_disk_keeps_no_old_policy_in_force(
    gateway: Gateway, phone: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(gateway)
    with phone.change("root") as change:
        devices.enable(change, "phone", enabled=False)

    def full(*_: object) -> None:
        raise ControlError("the disk is full")

    monkeypatch.setattr("wgpy.gateway.service.gateway.sessions.write", full)
    gateway.tick()
    assert world.open == {}
    assert world.compiled.sources == {}
    monkeypatch.undo()
    gateway.tick()
    assert last(phone)["connection-end-reason"] == "device-disabled"


def test_an_interface_is_not_renamed_while_the_gateway_runs(gateway: Gateway, phone: Database, world: World) -> None:
    send(gateway)
    set_endpoint(phone, interface="wg7", session_max=60)
    gateway.tick()
    assert gateway.interface == "wg0"
    assert world.followed[-1].endpoint.interface == "wg0"
    assert world.open[PHONE[0]][0] == world.now + 60 + GRACE, "the other settings are in force"
    assert gateway.ailment.startswith("interface: it cannot become wg7 while the gateway runs")
    with phone.change("root") as change:
        rules.add(change, Rule(name="all", destination=Destination.parse("10.0.0.0/8"), groups=frozenset({"staff"})))
    gateway.tick()
    assert "wg7" in gateway.ailment
    assert world.compiled.allows(PHONE[0], ip_address("10.0.0.5"))
    set_endpoint(phone, interface="wg0")
    gateway.tick()
    assert not gateway.ailment


def test_a_restored_backup_brings_no_session_and_no_sign_in_back(
    gateway: Gateway, phone: Database, world: World, tmp_path: Path
) -> None:
    set_endpoint(phone, sign_in=True)
    sign_in_phone(phone, world)
    gateway.tick()
    send(gateway)
    phone.backup(tmp_path / "backup")
    with phone.change("root") as change:
        sessions.terminate(change, "phone")
    gateway.tick()
    assert world.open == {}
    phone.restore(tmp_path / "backup", "root")
    gateway.tick()
    world.pass_time(RETRY)
    send(gateway)
    assert world.open == {}
    with phone.read() as connection:
        assert sessions.under_way(connection) == []


def test_sessions_that_the_kernel_has_lost_are_opened_again_and_others_closed(gateway: Gateway, world: World) -> None:
    send(gateway)
    until = world.open[PHONE[0]][0]
    world.traffic(PHONE[0], 3)
    world.pass_time(MEASURED)
    gateway.tick()
    del world.open[PHONE[0]]
    world.open[ip_address("10.99.0.6")] = (world.now + 99, 0)
    gateway.suspect({1})
    gateway.tick()
    assert {*world.open} == {*PHONE}
    assert world.open[PHONE[0]][0] == until
    world.traffic(PHONE[0], 2)
    world.pass_time(MEASURED)
    gateway.tick()
    assert gateway.total.ingress_packets == 5
