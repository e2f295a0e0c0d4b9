"""The service's sessions on a clock that the test turns, with a firewall and an interface that only remember."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any, cast

import pytest

from wgpy.errors import ConfigError, ControlError, NetworkError
from wgpy.gateway.enforcement.nft import Firewall, Passed
from wgpy.gateway.policy.compiler import Compiled
from wgpy.gateway.policy.destinations import Address, Destination, Network
from wgpy.gateway.policy.handler import Answer
from wgpy.gateway.policy.routes import Route
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.policy.sessions import Reason
from wgpy.gateway.policy.snapshot import Policy
from wgpy.gateway.service.gateway import GRACE, MEASURED, RETRY, SKEW, Gateway
from wgpy.gateway.service.metrics import GatewayMetrics
from wgpy.gateway.store import audit, devices, endpoint, rules, sessions, users
from wgpy.gateway.store.database import Database
from wgpy.keys import PresharedKey, PublicKey

KEY = PublicKey(bytes([1]) * 32)
PHONE = (ip_address("10.99.0.2"), ip_address("fd00:99::2"))
HOUR = 3600.0


class World:
    """A firewall and an interface, and the clocks."""

    def __init__(self) -> None:
        self.now = 500.0  # CLOCK_BOOTTIME
        self.date = 1_000_000.0
        self.open: dict[Address, tuple[float, int]] = {}  # until, packets
        self.compiled = Compiled((), {})
        self.followed: list[Policy] = []
        self.entries: list[dict[str, Any]] = []
        self.refuses = ""
        self.is_strange = False
        self.has_table = True
        self.has_interface = False
        self.host: dict[str, list[Network]] = {}

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.date += seconds
        self.open = {address: each for address, each in self.open.items() if each[0] > self.now}

    def traffic(self, address: Address, packets: int) -> None:
        until, before = self.open[address]
        self.open[address] = (until, before + packets)

    # What the service calls.

    def exists(self) -> bool:
        return self.has_table

    def replace(self, pools: Iterable[Network], compiled: Compiled, routes: Iterable[Route]) -> None:
        self._obey()
        self.compiled = compiled
        self.has_table = True

    def admit(self, opened: dict[Address, float], closed: Iterable[Address] = ()) -> None:
        self._obey()
        for address in closed:
            self.open.pop(address, None)
        self.open |= {address: (self.now + seconds, 0) for address, seconds in opened.items()}

    def sent(self) -> dict[Address, Passed]:
        return {a: Passed(packets, 100 * packets, until - self.now) for a, (until, packets) in self.open.items()}

    def received(self) -> dict[Address, Passed]:
        return self.sent()

    def is_up(self, interface: str) -> bool:
        return self.has_interface

    def networks_of_host(self, *interfaces: str) -> dict[str, list[Network]]:
        return self.host

    def check(self, policy: Policy) -> None:
        if self.is_strange:
            raise ControlError("wg0: this interface exists")

    def up(self, policy: Policy) -> None:
        self.has_interface = True
        self.follow(policy)

    def follow(self, policy: Policy) -> None:
        self.followed.append(policy)

    def clients(self, interface: str) -> dict[PublicKey, tuple[str, str]]:
        return {KEY: ("198.51.100.7", "40000")}

    def _obey(self) -> None:
        if self.refuses:
            raise NetworkError(self.refuses)


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


def start(database: Database, world: World) -> Gateway:
    made = Gateway(database, world, world, clock=lambda: world.now, wall=lambda: world.date, write=world.entries.append)
    made.start()
    made.tick()
    return made


def send(gateway: Gateway) -> None:
    """The phone sends something."""
    gateway.notice({PHONE[0]})
    gateway.tick()


def set_endpoint(database: Database, **values: Any) -> None:
    with database.change("root") as change:
        endpoint.replace(change, replace(endpoint.find(change.connection), **values))


def last(database: Database) -> dict[str, Any]:
    with database.read() as connection:
        return sessions.last(connection, 1)[0]


def test_a_session_begins_with_a_packet_and_ends_after_its_time(
    gateway: Gateway, phone: Database, world: World
) -> None:
    assert world.open == {}
    send(gateway)
    assert {*world.open} == {*PHONE}
    (entry,) = world.entries
    assert entry["connection-attempt-status"] == "successful"
    assert (entry["common-name"], entry["username"], entry["device-ip"]) == ("phone", "alice", "198.51.100.7")
    world.traffic(PHONE[0], 3)
    world.pass_time(8 * HOUR - 1)
    gateway.tick()
    assert {*world.open} == {*PHONE}
    world.pass_time(1)
    gateway.tick()
    assert world.open == {}
    assert last(phone)["connection-end-reason"] == "session-expired"
    assert (last(phone)["ingress-packets"], last(phone)["ingress-bytes"]) == ("3", "300")
    assert last(phone)["connection-duration-seconds"] == str(round(8 * HOUR))
    assert gateway.counts == {("started", ""): 1, ("ended", "session-expired"): 1}
    assert gateway.total.ingress_packets == 3


def test_the_kernel_ends_a_session_soon_after_its_time(gateway: Gateway, world: World) -> None:
    send(gateway)
    world.pass_time(8 * HOUR + GRACE)
    assert world.open == {}


def test_a_shorter_session_max_applies_to_present_sessions_and_keeps_their_counters(
    gateway: Gateway, phone: Database, world: World
) -> None:
    send(gateway)
    world.traffic(PHONE[1], 2)
    world.pass_time(60)
    set_endpoint(phone, session_max=120)
    gateway.tick()
    world.traffic(PHONE[1], 3)
    assert world.open[PHONE[0]][0] == world.now + 60 + GRACE
    world.pass_time(60)
    gateway.tick()
    assert world.open == {}
    assert last(phone)["egress-packets"] == "5"


@pytest.mark.parametrize("who", ["user", "device"])
def test_a_disabled_or_removed_user_loses_access_at_once_and_can_come_back(
    who: str, gateway: Gateway, phone: Database, world: World
) -> None:
    send(gateway)
    with phone.change("root") as change:
        if who == "user":
            users.replace(change, replace(users.find(change.connection, "alice"), enabled=False))
        else:
            devices.enable(change, "phone", enabled=False)
    gateway.tick()
    assert world.open == {}
    assert last(phone)["connection-end-reason"] == f"{who}-disabled"
    change_of_peers = world.followed[-1].change_of(status_with_phone(world))
    assert change_of_peers is not None
    assert [peer.remove for peer in change_of_peers.peers] == [True]
    world.pass_time(1)
    send(gateway)
    assert world.open == {}
    assert last(phone)["connection-attempt-failure-reason"] == f"{who}-disabled"
    with phone.change("root") as change:
        if who == "user":
            users.replace(change, replace(users.find(change.connection, "alice"), enabled=True))
        else:
            devices.enable(change, "phone", enabled=True)
    gateway.tick()
    world.pass_time(1)
    send(gateway)
    assert {*world.open} == {*PHONE}
    with phone.change("root") as change:
        devices.remove(change, "phone")
    gateway.tick()
    assert world.open == {}
    assert last(phone)["connection-end-reason"] == "device-removed"


def test_an_expired_user_stays_out_when_the_date_is_set_back_until_there_is_a_new_one(
    gateway: Gateway, phone: Database, world: World
) -> None:
    with phone.change("root") as change:
        users.replace(change, replace(users.find(change.connection, "alice"), expires=world.date + HOUR))
    send(gateway)
    assert {*world.open} == {*PHONE}
    world.pass_time(HOUR)
    gateway.tick()
    assert world.open == {}
    assert last(phone)["connection-end-reason"] == "user-expired"
    with phone.read() as connection:
        (entry,) = audit.find_last(connection, 1)
    assert (entry["who"], entry["name"]) == ("gateway", "alice")
    assert (entry["before"]["expired"], entry["after"]["expired"]) == (False, True)
    world.date -= 2 * HOUR
    world.now += RETRY
    send(gateway)
    assert world.open == {}
    assert gateway.counts["refused", "user-expired"] == 1
    change_of_peers = world.followed[-1].change_of(status_with_phone(world))
    assert change_of_peers is not None
    assert [peer.remove for peer in change_of_peers.peers] == [True]
    world.now += RETRY
    send(start(phone, world))
    assert world.open == {}
    with phone.change("root") as change:
        user = replace(users.find(change.connection, "alice"), expires=world.date + HOUR, expired=False)
        users.replace(change, user)
    gateway.tick()
    world.now += RETRY
    send(gateway)
    assert {*world.open} == {*PHONE}


def status_with_phone(world: World) -> Any:
    from wgpy.device.status import DeviceStatus, PeerStatus

    policy = world.followed[0]
    peer = PeerStatus(public_key=KEY, preshared_key=policy.preshared_keys[KEY])
    return DeviceStatus(private_key=policy.private_key, listen_port=policy.endpoint.port, peers=(peer,))


def test_a_refused_client_is_evaluated_once_in_some_seconds(gateway: Gateway, phone: Database, world: World) -> None:
    set_endpoint(phone, sign_in=True)
    for _ in range(20):
        send(gateway)
        world.pass_time(RETRY / 10)
    assert gateway.counts["refused", "not-signed-in"] == 2
    assert last(phone)["connection-attempt-failure-reason"] == "not-signed-in"


def test_with_sign_in_a_session_starts_there_and_its_end_requires_another(
    gateway: Gateway, phone: Database, world: World
) -> None:
    set_endpoint(phone, sign_in=True)
    with phone.change("root") as change:
        change.now = world.date
        devices.sign_in(change, "phone")
    gateway.tick()
    world.pass_time(HOUR)
    send(gateway)
    assert {*world.open} == {*PHONE}
    world.date += 100 * HOUR  # somebody changes the date
    gateway.tick()
    assert {*world.open} == {*PHONE}
    world.pass_time(7 * HOUR)
    gateway.tick()
    assert world.open == {}
    world.pass_time(RETRY)
    send(gateway)
    assert world.open == {}


def test_nothing_is_open_while_the_handler_decides(gateway: Gateway, phone: Database, world: World) -> None:
    set_endpoint(phone, handler="/bin/true")
    send(gateway)
    assert world.open == {}
    (question,) = gateway.questions
    asked = json.loads(question.text)
    assert (asked["username"], asked["groups"], asked["public-ip"]) == ("alice", ["staff"], "198.51.100.7")
    gateway.answer("another", Answer(True, "", ()))
    gateway.tick()
    assert world.open == {}
    gateway.answer(question.session, Answer(True, "", ("compliant",)))
    gateway.tick()
    assert {*world.open} == {*PHONE}
    assert last(phone)["posture-compliance-statuses"] == ["compliant"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(False, "update your phone", ()), "client-connect-failed"),
        (Reason.HANDLER_TIMEOUT, "client-connect-handler-timed-out"),
    ],
)
def test_a_handler_that_denies_or_fails_keeps_the_client_out(
    answer: Answer | Reason, reason: str, gateway: Gateway, phone: Database, world: World
) -> None:
    set_endpoint(phone, handler="/bin/true")
    send(gateway)
    gateway.answer(gateway.questions[0].session, answer)
    gateway.tick()
    assert world.open == {}
    assert last(phone)["connection-attempt-failure-reason"] == reason
    assert last(phone)["connection-attempt-status"] == "failed"


def test_terminating_a_session_closes_its_connections(gateway: Gateway, phone: Database, world: World) -> None:
    send(gateway)
    with phone.change("root") as change:
        sessions.terminate(change, "alice")
    gateway.tick()
    assert world.open == {}
    assert last(phone)["connection-end-reason"] == "terminated"


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


def test_when_the_database_is_locked_nothing_opens_until_it_is_written_down(
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


def test_a_rule_is_in_force_at_the_next_tick(gateway: Gateway, phone: Database, world: World) -> None:
    server = ip_address("10.0.0.5")
    assert not world.compiled.allows(PHONE[0], server)
    with phone.change("root") as change:
        rule = Rule(name="all", destination=Destination.parse("10.0.0.0/8"), groups=frozenset({"staff"}))
        rules.add(change, rule)
    gateway.tick()
    assert world.compiled.allows(PHONE[0], server)


def test_a_table_that_somebody_removes_is_made_again_with_the_sessions(gateway: Gateway, world: World) -> None:
    send(gateway)
    until = world.open[PHONE[0]][0]
    world.has_table, world.open = False, {}
    gateway.suspect()
    gateway.tick()
    assert world.has_table
    assert {*world.open} == {*PHONE}
    assert world.open[PHONE[0]][0] == until
    gateway.suspect()
    gateway.tick()
    assert world.open[PHONE[0]][0] == until


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
    with phone.change("root") as change:
        change.now = world.date
        devices.sign_in(change, "phone")
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
    gateway.suspect()
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
