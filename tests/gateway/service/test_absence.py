"""Commands while no gateway runs: what they end is closed in the kernel at once, in the table that is left."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.netns import in_fresh_namespace
from wgpy.cli import main
from wgpy.gateway.enforcement.nft import Firewall
from wgpy.gateway.policy.compiler import compiled
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.service.gateway import GRACE
from wgpy.gateway.store import devices, sessions, state
from wgpy.gateway.store.database import Database
from wgpy.keys import PresharedKey

pytestmark = pytest.mark.root
HOUR = 3600.0


class Left:
    """A table, and a database in which Alice's phone and laptop and Bob's desk have sessions. Nothing runs."""

    def __init__(self, directory: Path) -> None:
        self._places = ["--directory", str(directory), "--key", str(directory / "key")]
        self.run("init --host 192.0.2.1 --pool 10.99.0.0/24 --session-max 8h")
        self.run("group add staff")
        for user, owned in {"alice": ("phone", "laptop"), "bob": ("desk",)}.items():
            self.run(f"user add {user} --group staff")
            for device in owned:
                self.run(f"device add {device} --user {user} --output {directory / device}")
        self.run("rule add office 10.0.0.0/8 --group staff")
        self.database = Database(directory / "gateway.db", directory / "key")
        self.firewall = Firewall("wg0", 51820)
        self.firewall.replace([], compiled([], {}), [])
        with self.database.read() as connection:
            found = devices.find_all(connection)
        self.addresses = {device.name: device.addresses[0] for device in found}
        with self.database.change("gateway") as change:
            sessions.write(
                change,
                [
                    {
                        "id": device.name,
                        "device": device.name,
                        "user": device.user,
                        "started_at": time.time(),
                        "ended_at": None,
                        "reason": None,
                        "entry": {},
                    }
                    for device in found
                ],
            )
        self.firewall.admit(dict.fromkeys(self.addresses.values(), 8 * HOUR + GRACE))

    def run(self, words: str) -> None:
        assert main(["gateway", *words.split(), *self._places]) == 0

    def stop(self) -> int:
        return main(["gateway", "stop", *self._places])

    def open(self) -> set[str]:
        sent = self.firewall.sent()
        assert sent.keys() <= {*self.addresses.values()}
        return {name for name, address in self.addresses.items() if address in sent}

    def seconds_left(self, address: Address) -> float:
        return self.firewall.sent()[address].seconds_left


def in_its_absence(test: Callable[[Left], None]) -> Callable[[], None]:
    def body() -> None:
        with left() as made:
            test(made)

    body.__name__ = test.__name__
    return in_fresh_namespace(body)


@contextmanager
def left() -> Iterator[Left]:
    with tempfile.TemporaryDirectory() as directory:
        yield Left(Path(directory))


@in_its_absence
def test_what_a_command_ends_is_closed_at_once_and_the_rest_goes_on(left: Left) -> None:
    assert left.open() == {"phone", "laptop", "desk"}
    left.run("device disable phone")
    assert left.open() == {"laptop", "desk"}
    left.run("session terminate laptop")
    assert left.open() == {"desk"}
    left.run("device enable phone")
    assert left.open() == {"desk"}, "nothing begins"
    left.run("user disable bob")
    assert left.open() == set()


@in_its_absence
def test_a_device_that_is_given_to_another_leaves_its_session_behind(left: Left) -> None:
    """Both in one transaction, so that no command comes between."""
    with left.database.change("root") as change:
        address, key = left.addresses["phone"], devices.find(change.connection, "phone").public_key
        devices.remove(change, "phone")
        devices.add(change, "phone", "bob", key, PresharedKey.generate(), [address])
    left.run("device enable phone")
    assert left.open() == {"laptop", "desk"}


@in_its_absence
def test_a_shorter_time_applies_to_sessions_that_go_on_and_a_longer_one_does_not(left: Left) -> None:
    desk = left.addresses["desk"]
    left.run("endpoint set --session-max 1h")
    assert HOUR - 60 < left.seconds_left(desk) <= HOUR + GRACE
    left.run("endpoint set --session-max 24h")
    assert left.seconds_left(desk) <= HOUR + GRACE
    left.run("user set bob --expires 2020-01-01")
    assert left.open() == {"phone", "laptop"}


@in_its_absence
def test_rules_and_groups_are_in_force_at_once_too(left: Left) -> None:
    left.run("route add 10.0.0.0/16")
    assert present_reaches() == 1
    left.run("rule remove office")
    assert present_reaches() == 0


def present_reaches() -> int:
    """How many destinations the table lets clients reach."""
    return subprocess.check_output(["nft", "list", "ruleset"], text=True).count("10.0.0.0/8 : accept")


@in_its_absence
def test_a_restored_backup_ends_all_sessions(left: Left) -> None:
    with tempfile.TemporaryDirectory() as directory:
        left.run(f"backup {directory}/copy")
        left.run(f"restore {directory}/copy")
    assert left.open() == set()


@in_its_absence
def test_while_a_gateway_runs_commands_leave_the_table_to_it(left: Left) -> None:
    with left.database.running():
        left.run("user disable bob")
    assert left.open() == {"phone", "laptop", "desk"}


@in_its_absence
def test_without_a_table_a_command_makes_none(left: Left) -> None:
    left.firewall.remove()
    left.run("user disable bob")
    assert not left.firewall.exists()
    assert state.read(left.database)[0].users["bob"].enabled is False


@in_its_absence
def test_the_table_of_an_interface_that_is_another_gateways_is_left_alone(left: Left) -> None:
    subprocess.run(["ip", "link", "add", "wg0", "type", "bridge"], check=True)
    left.run("user disable bob")
    assert left.open() == {"phone", "laptop", "desk"}
    assert left.stop() == 1
    assert left.open() == {"phone", "laptop", "desk"}
    subprocess.run(["ip", "link", "delete", "wg0"], check=True)
    assert left.stop() == 0
    assert not left.firewall.exists()
