"""A session belongs to whoever had the device when it began, whoever has one of that name or address later."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.gateway.service.world import KEY, PHONE, World, last, send, start
from wgpy.gateway.policy.people import User
from wgpy.gateway.service.gateway import Gateway
from wgpy.gateway.store import devices, sessions, users
from wgpy.gateway.store.database import Change, Database
from wgpy.keys import PresharedKey, PublicKey

OTHER = PublicKey(bytes([9]) * 32)


def give_to_bob(change: Change, key: PublicKey = OTHER) -> None:
    """Bob has a device of the phone's name and addresses."""
    users.add(change, User(name="bob", groups=frozenset({"ops"})))
    devices.remove(change, "phone")
    devices.add(change, "phone", "bob", key, PresharedKey.generate(), PHONE)


def whose(entry: dict[str, object]) -> tuple[object, ...]:
    return entry["username"], entry["groups"], entry["connection-end-reason"]


@pytest.mark.parametrize("key", [KEY, OTHER], ids=["same key", "other key"])
def test_a_device_that_is_given_to_another_within_a_tick_ends_its_owners_session(
    key: PublicKey, gateway: Gateway, phone: Database, world: World
) -> None:
    send(gateway)
    world.traffic(PHONE[0], 3)
    with phone.change("root") as change:
        give_to_bob(change, key)
    gateway.tick()
    assert world.open == {}
    assert whose(world.entries[-1]) == whose(last(phone)) == ("alice", ["staff"], "device-removed")
    assert last(phone)["ingress-packets"] == "3"
    send(gateway)
    assert {*world.open} == {*PHONE}
    assert whose(last(phone)) == ("bob", ["ops"], "NA")


@pytest.mark.parametrize("what", ["user", "device"])
def test_the_entry_of_somebody_who_was_removed_says_who_it_was(
    what: str, gateway: Gateway, phone: Database, world: World
) -> None:
    send(gateway)
    with phone.change("root") as change:
        users.remove(change, "alice") if what == "user" else devices.remove(change, "phone")
    gateway.tick()
    assert whose(world.entries[-1]) == whose(last(phone)) == ("alice", ["staff"], "device-removed")


def test_the_entry_keeps_the_groups_of_its_beginning(gateway: Gateway, phone: Database, world: World) -> None:
    send(gateway)
    with phone.change("root") as change:
        users.replace(change, replace(users.find(change.connection, "alice"), groups=frozenset({"ops"})))
        sessions.terminate(change, "phone")
    gateway.tick()
    assert whose(last(phone)) == ("alice", ["staff"], "terminated")


def test_a_gateway_that_starts_again_does_not_give_a_session_to_another(
    gateway: Gateway, phone: Database, world: World
) -> None:
    send(gateway)
    with phone.change("root") as change:
        give_to_bob(change)
    start(phone, world)
    assert world.open == {}
    assert whose(last(phone)) == ("alice", ["staff"], "device-removed")
