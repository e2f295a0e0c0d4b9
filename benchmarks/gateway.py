"""A gateway with 10,000 devices and 200 rules: python -m benchmarks.gateway [--postgresql], as root.

Prints how long it takes to start, to put a changed rule in force, and to say which rule decides; and its memory. Then a
gateway runs as a process of its own, and a command's rule is timed from the command's start to the kernel's table. The
interface is wgpy's, in this network namespace: run it in one of its own, such as by `unshare -n`.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

from sqlalchemy import Table, insert

from tests.support.postgres import postgres
from wgpy.gateway.enforcement.dataplane import DataPlane
from wgpy.gateway.enforcement.nft import Firewall
from wgpy.gateway.enforcement.notices import Changes
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.people import Group
from wgpy.gateway.policy.rules import Rule, decide
from wgpy.gateway.service.gateway import Gateway
from wgpy.gateway.service.run import boottime
from wgpy.gateway.store import devices, endpoint, groups, rules, schema, users
from wgpy.gateway.store.database import Change, Database
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

T = TypeVar("T")
INTERFACE: Final = "wgpy-bench"
GROUPS: Final = 20
COMMANDS: Final = 5
COMMAND: Final = (sys.executable, "-m", "wgpy", "gateway")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--rules", type=int, default=200)
    parser.add_argument("--postgresql", action="store_true", help="in Debian's PostgreSQL instead of SQLite")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        place: Path | str = Path(directory) / "gateway.db"
        if arguments.postgresql:
            place = stack.enter_context(postgres()).url()
        key = Path(directory) / "gateway.key"
        database = timed("make the database", lambda: fill(place, key, arguments.devices, arguments.rules))
        stack.callback(database.close)
        measure(database)
        if arguments.postgresql:
            (Path(directory) / "database.url").write_text(str(place))
        measure_command(("--directory", directory, "--key", str(key)))


def timed(what: str, call: Callable[[], T]) -> T:
    """Do something, and print how long it took, and how much of this process's CPU time."""
    wall, cpu = time.monotonic(), time.process_time()
    result = call()
    print(f"{what:45} {time.monotonic() - wall:7.2f} s  ({time.process_time() - cpu:.2f} s CPU)")
    return result


def fill(place: Path | str, key: Path, count: int, rule_count: int) -> Database:
    """A database with so many users of one device each, in 20 groups, and so many rules."""
    database = Database.create(place, key)
    pools = (IPv4Network("100.64.0.0/16"), ip_network("fd00:99::/64"))
    with database.change("benchmark") as change:
        endpoint.add(
            change,
            Endpoint(interface=INTERFACE, host="192.0.2.1", pools=pools, data_plane="wgpy"),
            PrivateKey.generate(),
        )
        for number in range(GROUPS):
            groups.add(change, Group(name=f"g{number}"))
        for number in range(rule_count):
            rules.add(change, rule(number))
        write = partial(write_all, change)
        names = [(f"u{n}", f"d{n}", PublicKey(n.to_bytes(4, "big") * 8).base64()) for n in range(count)]
        write(schema.users, [{"name": user, "enabled": True, "expires": None} for user, _, _ in names])
        write(schema.memberships, [{"user": f"u{n}", "group": g} for n in range(count) for g in groups_of(n)])
        write(
            schema.devices,
            [
                {
                    "name": name,
                    "user": user,
                    "public_key": key,
                    "preshared_key": change.vault.seal(f"preshared key of {name}", os.urandom(32)),
                    "enabled": True,
                    "signed_in_at": None,
                }
                for user, name, key in names
            ],
        )
        write(
            schema.leases,
            [
                {"address": str(pool[2 + number]), "public_key": key, "released_at": None}
                for number, (_, _, key) in enumerate(names)
                for pool in pools
            ],
        )
    with database.change("benchmark") as change:
        timed(
            "add one more device",
            lambda: devices.add(change, "another", "u0", PrivateKey.generate().public_key, PresharedKey.generate()),
        )
    return database


def write_all(change: Change, table: Table, rows: list[dict[str, object]]) -> None:
    """Insert rows at once: one by one, as an admin would add them, takes minutes."""
    change.connection.execute(insert(table), rows)


def groups_of(number: int) -> set[str]:
    return {f"g{number % GROUPS}", f"g{number % 7}"}


def rule(number: int) -> Rule:
    prefix = f"10.{number}.0.0/16" if number % 2 else f"2001:db8:{number:x}::/48"
    return Rule(name=f"r{number}", destination=Destination.parse(prefix), groups=frozenset({f"g{number % GROUPS}"}))


def measure(database: Database) -> None:
    firewall, plane = Firewall(INTERFACE, 51820), DataPlane()
    try:
        gateway = timed(
            "read the database",
            lambda: Gateway(database, firewall, plane, clock=boottime, wall=time.time, write=lambda _: None),
        )
        timed("put all in force, the interface's peers included", gateway.start)
        with database.change("benchmark") as change:
            rules.remove(change, "r0")
        timed("put a changed rule in force", gateway.tick)
        timed("a tick with nothing to do", gateway.tick)
        with database.read() as connection:
            every, user = rules.find_all(connection), users.find(connection, "u7")
        address = ip_network("10.7.0.0/16")[9]
        timed("say which rule decides", lambda: decide(every, user.groups, address, "tcp", 443))
    finally:
        firewall.remove()
        plane.down(INTERFACE)
    print(f"{'memory at most':45} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:7.0f} MB")


def measure_command(places: Sequence[str]) -> None:
    """Run the gateway, and see when the rule of a command is in force."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, ExitStack() as stack:
        manager.bind("\0wgpy-gateway-benchmark")
        manager.settimeout(60)
        environment = {**os.environ, "NOTIFY_SOCKET": "@wgpy-gateway-benchmark"}
        gateway = subprocess.Popen([*COMMAND, "run", *places], env=environment)
        stack.callback(lambda: subprocess.run([*COMMAND, "stop", *places], check=True, stderr=subprocess.DEVNULL))
        stack.callback(gateway.wait)
        stack.callback(gateway.terminate)
        manager.recv(100)  # READY=1
        changes = stack.enter_context(closing(Changes(Firewall(INTERFACE, 51820).name)))
        in_force, whole = [], []
        for number in range(1, COMMANDS + 1):
            begun = time.monotonic()
            command = subprocess.Popen([*COMMAND, "rule", "remove", f"r{number}", *places], stderr=subprocess.DEVNULL)
            select.select([changes], [], [], 30)
            in_force.append(time.monotonic() - begun)
            command.wait()
            whole.append(time.monotonic() - begun)
            time.sleep(1)
            changes.read()
    print(f"{'from a command to the kernel, median':45} {median(in_force):7.2f} s")
    print(f"{'  the command alone':45} {median(whole):7.2f} s")


if __name__ == "__main__":
    main()
