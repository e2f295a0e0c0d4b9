"""A firewall and an interface that only remember, and clocks that a test turns, for the service's tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from wgpy.errors import ControlError, NetworkError
from wgpy.gateway.enforcement.nft import Passed
from wgpy.gateway.policy.compiler import Compiled
from wgpy.gateway.policy.destinations import Address, Network
from wgpy.gateway.policy.portal import Service
from wgpy.gateway.policy.routes import Route
from wgpy.gateway.policy.snapshot import Policy
from wgpy.gateway.service.gateway import Gateway
from wgpy.gateway.store import devices, endpoint, sessions
from wgpy.gateway.store.database import Database
from wgpy.keys import PrivateKey, PublicKey

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
        self.services: list[Service] = []
        self.followed: list[Policy] = []
        self.replaced = 0  # how often the table was
        self.entries: list[dict[str, Any]] = []
        self.refuses = ""
        self.is_strange = False
        self.has_table = True
        self.has_interface = False
        self.guarded = 0
        self.forgotten: set[PublicKey] = set()
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

    def changed_by(self, ports: set[int]) -> bool:
        return True

    def replace(
        self,
        pools: Iterable[Network],
        compiled: Compiled,
        routes: Iterable[Route],
        services: Iterable[Service],
        *,
        log_denied: bool = False,
    ) -> bool:
        self._obey()
        self.replaced += 1
        anew = not self.has_table
        if anew:
            self.open = {}
        self.compiled, self.services = compiled, [*services]
        self.has_table = True
        return anew

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

    def check(self, name: str, key: PrivateKey) -> None:
        if self.is_strange:
            raise ControlError("wg0: this interface exists")

    def up(self, policy: Policy) -> None:
        self.has_interface = True
        self.follow(policy)

    def follow(self, policy: Policy) -> None:
        self.followed.append(policy)

    def forget(self, interface: str, keys: Iterable[PublicKey]) -> None:
        self.forgotten.update(keys)

    def guard(self, interface: str) -> None:
        self.guarded += 1

    def clients(self, interface: str) -> dict[PublicKey, tuple[str, str]]:
        return {KEY: ("198.51.100.7", "40000")}

    def _obey(self) -> None:
        if self.refuses:
            raise NetworkError(self.refuses)


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


def sign_in_phone(database: Database, world: World) -> None:
    with database.change("root") as change:
        change.now = world.date
        devices.sign_in(change, "phone")


def last(database: Database) -> dict[str, Any]:
    with database.read() as connection:
        return sessions.last(connection, 1)[0]


def status_with_phone(world: World) -> Any:
    from wgpy.device.status import DeviceStatus, PeerStatus

    policy = world.followed[0]
    peer = PeerStatus(public_key=KEY, preshared_key=policy.preshared_keys[KEY])
    return DeviceStatus(private_key=policy.private_key, listen_port=policy.endpoint.port, peers=(peer,))
