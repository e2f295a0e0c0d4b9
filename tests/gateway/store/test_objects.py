"""Users, groups, devices, routes and rules in the database: kept, changed, refused, and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from wgpy.errors import ConfigError
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.policy.routes import Route
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.store import audit, devices, endpoint, groups, routes, rules, transfer, users
from wgpy.gateway.store.database import Change, Database
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

KEYS = [PublicKey(bytes([n]) * 32) for n in range(9)]
PSK = PresharedKey(bytes(range(32)))
WEB = Rule(name="web", destination=Destination.parse("[2001:db8::/32]:443/tcp"), groups=frozenset({"staff"}))
ROUTE = Route(network=ip_network("10.0.0.0/16"), snat="10.0.0.4")


def test_objects_are_read_back_as_they_were_written(database: Database) -> None:
    with database.change("root") as change:
        users.add(change, User(name="bob@example.org", groups=frozenset({"staff", "ops"}), expires=5000.0))
        rules.add(change, WEB)
        routes.add(change, ROUTE)
        phone = devices.add(change, "phone", "alice", KEYS[1], PSK)
    with database.read() as connection:
        assert [user.name for user in users.find_all(connection)] == ["alice", "bob@example.org"]
        assert users.find(connection, "bob@example.org").groups == {"staff", "ops"}
        assert users.find(connection, "bob@example.org").expires == 5000.0
        assert rules.find_all(connection) == [WEB]
        assert routes.find_all(connection) == [ROUTE]
        assert devices.find_all(connection) == [phone]
        assert phone.addresses == (ip_address("10.99.0.2"), ip_address("fd00:99::2"))
        assert devices.preshared_keys(connection, database.vault) == {KEYS[1]: PSK}
        assert endpoint.find(connection).session_max == 8 * 3600
        assert endpoint.private_key(connection, database.vault)


def test_a_returning_device_gets_its_old_address_and_a_static_one_as_asked(database: Database) -> None:
    with database.change("root") as change:
        first = devices.add(change, "one", "alice", KEYS[1], PSK)
        devices.remove(change, "one")
        assert devices.add(change, "two", "alice", KEYS[2], PSK).addresses != first.addresses
        assert devices.add(change, "one", "alice", KEYS[1], PSK).addresses == first.addresses
        static = (ip_address("10.99.0.6"),)
        assert devices.add(change, "three", "alice", KEYS[3], PSK, static).addresses[0] == static[0]


def take_pool(change: Change, _: object) -> None:
    endpoint.replace(change, replace(endpoint.find(change.connection), pools=(ip_network("10.98.0.0/24"),)))


REFUSED: dict[str, tuple[Callable[[Change], object], str]] = {
    "a user twice": (lambda change: users.add(change, User(name="alice")), "user alice: exists already"),
    "a misspelt group": (
        lambda change: users.add(change, User(name="eve", groups=frozenset({"stuff"}))),
        "group 'stuff': there is none of that name; did you mean staff?",
    ),
    "a rule for a group that is not there": (
        lambda change: rules.add(change, replace(WEB, groups=frozenset({"nobody"}))),
        "`wgpy gateway group list` shows those that exist",
    ),
    "a group in use": (lambda change: groups.remove(change, "staff"), "group staff: user alice uses it"),
    "a device of nobody": (
        lambda change: devices.add(change, "phone", "alicia", KEYS[1], PSK),
        "user 'alicia': there is none of that name; did you mean alice?",
    ),
    "a key twice": (
        lambda change: (
            devices.add(change, "phone", "alice", KEYS[1], PSK),
            devices.add(change, "tablet", "alice", KEYS[1], PSK),
        ),
        "device tablet: device phone has this public key",
    ),
    "more devices than addresses": (
        lambda change: [devices.add(change, f"d{n}", "alice", KEYS[n], PSK) for n in range(6)],
        "pool 10.99.0.0/29: every address is taken",
    ),
    "a route over a pool": (
        lambda change: routes.add(change, Route(network=ip_network("10.0.0.0/8"))),
        "pool 10.99.0.0/29: overlaps route 10.0.0.0/8",
    ),
    "a route that is not there": (
        lambda change: routes.remove(change, ip_network("10.0.0.0/8")),
        "the routes are: none",
    ),
    "a pool taken from under a device": (
        lambda change: take_pool(change, devices.add(change, "phone", "alice", KEYS[1], PSK)),
        "a device has 10.99.0.2, which would be in no pool",
    ),
    "a second endpoint": (
        lambda change: endpoint.add(change, endpoint.find(change.connection), None),  # type: ignore[arg-type]
        "there is one already",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_named_and_nothing_is_changed(case: str, database: Database) -> None:
    attempt, why = REFUSED[case]
    with database.read() as connection:
        before = audit.find_last(connection, 100)
    with pytest.raises(ConfigError) as error, database.change("root") as change:
        attempt(change)
    assert why in str(error.value)
    with database.read() as connection:
        assert audit.find_last(connection, 100) == before
        assert devices.find_all(connection) == []


def test_every_change_is_recorded_with_who_made_it(database: Database) -> None:
    with database.change("root") as change:
        rules.add(change, WEB)
        devices.add(change, "phone", "alice", KEYS[1], PSK)
    with database.change("carol") as change:
        users.replace(change, User(name="alice", groups=frozenset({"staff"}), enabled=False))
        users.replace(change, User(name="alice", groups=frozenset({"staff"}), enabled=False))  # no change
        devices.sign_in(change, "phone")
        users.remove(change, "alice")
        rules.remove(change, "web")
    with database.read() as connection:
        entries = audit.find_last(connection, 8)
    seen = [(each["who"], each["kind"], each["name"], bool(each["before"]), bool(each["after"])) for each in entries]
    assert seen == [
        ("root", "user", "alice", False, True),
        ("root", "rule", "web", False, True),
        ("root", "device", "phone", False, True),
        ("carol", "user", "alice", True, True),
        ("carol", "sign-in", "phone", True, True),
        ("carol", "device", "phone", True, False),
        ("carol", "user", "alice", True, False),
        ("carol", "rule", "web", True, False),
    ]
    assert entries[3]["before"]["enabled"] is True
    assert entries[3]["after"]["enabled"] is False
    assert entries[4]["after"]["signed_in_at"] == 1000.0


def test_a_hostile_file_is_refused_as_fast_as_another(database: Database) -> None:
    """A comment that backtracks would hold Python's lock, and with it the whole gateway, for an hour."""
    text = f"[Interface]\nPrivateKey = {PrivateKey.generate().base64()}\n# Client: {' (' * 2_000_000}\n"
    with database.change("root") as change:
        assert transfer.take_over(change, "file", text, []) == []


def test_a_pool_can_grow_and_an_unused_group_be_removed(database: Database) -> None:
    with database.change("root") as change:
        for number in range(5):
            devices.add(change, f"d{number}", "alice", KEYS[number], PSK)
        wider = (ip_network("10.99.0.0/28"), ip_network("fd00:99::/64"))
        endpoint.replace(change, replace(endpoint.find(change.connection), pools=wider, interface="wg1"))
        assert devices.add(change, "d5", "alice", KEYS[5], PSK).addresses[0] == ip_address("10.99.0.7")
        assert endpoint.private_key(change.connection, database.vault)
        groups.remove(change, "ops")
        assert groups.find_all(change.connection) == [Group(name="staff")]
