"""`wgpy gateway test`: which rule decides."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from wgpy.errors import ConfigError
from wgpy.gateway.cli import common
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import decide


def add(objects: Any) -> None:
    made = common.command(
        objects,
        "test",
        "say whether a user may reach a destination, and which rule decides",
        _test,
        epilog="The exit status is 0 if it is allowed, and 1 if it is denied. Example: wgpy gateway test alice "
        "10.0.1.5:443/tcp",
    )
    made.add_argument("user", metavar="USER", help="the user's name")
    made.add_argument("destination", metavar="DESTINATION", help="an address, perhaps with a port and a protocol")


def _test(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import rules, users

    destination = Destination.parse(arguments.destination)
    network, ports = destination.network, destination.ports
    if network.num_addresses > 1 or len({each.protocol for each in ports}) > 1 or any(
        each.first != each.last and each.protocol != "icmp" for each in ports
    ):  # fmt: skip
        raise ConfigError(
            f"destination {arguments.destination!a}: expected one address, or one with a port such as :443/tcp"
        )
    with common.reading(arguments) as connection:
        user, every = users.find(connection, arguments.user), rules.find_all(connection)
    protocol, port = (ports[0].protocol, ports[0].first) if ports else ("", 0)
    decision = decide(every, user.groups, network.network_address, protocol, port)
    expired = user.is_expired(time.time())
    if arguments.json:
        answer = {
            "allowed": decision.allowed,
            "prefix": decision.prefix and str(decision.prefix),
            "rule": decision.rule and decision.rule.name,
            "why": decision.why,
            "enabled": user.enabled,
            "expired": expired,
        }
        print(json.dumps(answer, indent=2))
    else:
        but = "disabled" if not user.enabled else "expired" if expired else ""
        print(f"{decision}{but and f'; but {user.name} is {but}'}")
    return int(not decision.allowed)
