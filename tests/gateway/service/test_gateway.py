"""The service's sessions on a clock that the test turns, with a firewall and an interface that only remember."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.gateway.service.world import (
    HOUR,
    PHONE,
    World,
    last,
    send,
    set_endpoint,
    sign_in_phone,
    start,
    status_with_phone,
)
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.handler import Answer
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.policy.sessions import Reason
from wgpy.gateway.service.clocks import SLACK
from wgpy.gateway.service.gateway import GRACE, RETRY, Gateway
from wgpy.gateway.store import audit, devices, logins, rules, sessions, users
from wgpy.gateway.store.database import Database


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


def test_the_rates_of_the_last_minutes_are_remembered(gateway: Gateway, world: World) -> None:
    gateway.tick()
    send(gateway)
    for _ in range(2):
        world.traffic(PHONE[0], 50)
        world.pass_time(10)
        gateway.tick()
    world.pass_time(10)
    gateway.tick()
    assert [(each.ago, each.ingress) for each in gateway.rates()][-3:] == [(20.0, 500.0), (10.0, 500.0), (0.0, 0.0)]


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
    sign_in_phone(phone, world)
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


def test_a_sign_in_costs_neither_a_new_table_nor_what_other_devices_cost(
    gateway: Gateway, phone: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of people may sign in each minute, and there may be ten thousand devices."""
    set_endpoint(phone, sign_in=True)
    gateway.tick()
    before = (world.replaced, len(world.followed))
    monkeypatch.setattr(devices, "find_all", None)  # nobody reads all of them
    for _ in range(3):
        with phone.change("root") as change:
            change.now = world.date
            logins.add(change, "alice", "passkey", "192.0.2.1")
            devices.sign_in(change, "phone")
        gateway.tick()
        world.pass_time(RETRY)
        send(gateway)
        assert {*world.open} == {*PHONE}
        with phone.change("root") as change:
            devices.sign_out(change, "alice")
        gateway.tick()
        assert world.open == {}
        world.pass_time(RETRY)
        send(gateway)
        assert world.open == {}
    assert (world.replaced, len(world.followed)) == before


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


def test_a_rule_is_in_force_at_the_next_tick(gateway: Gateway, phone: Database, world: World) -> None:
    server = ip_address("10.0.0.5")
    assert not world.compiled.allows(PHONE[0], server)
    with phone.change("root") as change:
        rule = Rule(name="all", destination=Destination.parse("10.0.0.0/8"), groups=frozenset({"staff"}))
        rules.add(change, rule)
    gateway.tick()
    assert world.compiled.allows(PHONE[0], server)


def test_the_kernel_ends_a_session_when_its_user_expires(gateway: Gateway, phone: Database, world: World) -> None:
    def expire_at(date: float) -> None:
        with phone.change("root") as change:
            users.replace(change, replace(users.find(change.connection, "alice"), expires=date))

    expire_at(world.date + HOUR)
    send(gateway)
    until = world.open[PHONE[0]][0]
    assert until == world.now + HOUR + GRACE
    world.now += SLACK / 2  # the clocks drift
    gateway.tick()
    world.date -= HOUR  # and somebody sets the date back
    gateway.tick()
    assert world.open[PHONE[0]][0] == until
    world.date += HOUR + 60  # and forward
    gateway.tick()
    assert world.open[PHONE[0]][0] == world.now + HOUR - 60 + GRACE
    expire_at(world.date + 2 * HOUR)
    gateway.tick()
    assert world.open[PHONE[0]][0] == world.now + 2 * HOUR + GRACE
    world.now += 2 * HOUR  # by the kernel's clock, whatever the date is
    gateway.tick()
    assert world.open == {}
    assert last(phone)["connection-end-reason"] == "user-expired"


def test_a_change_of_the_policy_is_a_reason_to_tick_at_once_and_what_the_gateway_writes_is_none(
    gateway: Gateway, phone: Database
) -> None:
    assert not gateway.is_behind()
    send(gateway)
    assert not gateway.is_behind(), "its own session"
    with phone.change("root") as change:
        rules.add(change, Rule(name="all", destination=Destination.parse("10.0.0.0/8"), everyone=True))
    assert gateway.is_behind()
    assert gateway.is_behind(), "until a tick has followed"
    gateway.tick()
    assert not gateway.is_behind()
    with phone.change("root") as change:
        sessions.terminate(change, "phone")
    assert gateway.is_behind()
    gateway.tick()
    assert not gateway.is_behind()
