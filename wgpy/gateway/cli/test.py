"""`wgpy gateway test`: which rule decides."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from wgpy.gateway.cli import common
from wgpy.gateway.policy.tester import judge


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

    with common.reading(arguments) as connection:
        user, every = users.find(connection, arguments.user), rules.find_all(connection)
    verdict = judge(every, user, arguments.destination, time.time())
    print(json.dumps(verdict.json(), indent=2) if arguments.json else verdict)
    return int(not verdict.decision.allowed)
