"""`wgpy gateway status`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from wgpy.errors import NetworkError
from wgpy.gateway.cli import common


def add(objects: Any) -> None:
    common.command(objects, "status", "say whether the gateway runs, and how many of what it has", _status)


def _status(arguments: argparse.Namespace) -> int:
    from wgpy import control
    from wgpy.gateway.enforcement.nft import Firewall
    from wgpy.gateway.store import sessions, state

    database = common.database(arguments)
    policy, _ = state.read(database)
    endpoint = policy.endpoint
    with database.read() as connection:
        live = len(sessions.under_way(connection))
    try:
        dropped: dict[str, int] = Firewall(endpoint.interface, endpoint.port).dropped()
    except NetworkError:  # there is no table yet, or we may not read it
        dropped = {}
    values: dict[str, Any] = {
        "running": database.is_running(),
        "endpoint": f"{endpoint.host}:{endpoint.port}",
        "interface": endpoint.interface,
        "interface_is_up": control.is_up(endpoint.interface),
        "sessions": live,
        "users": len(policy.users),
        "devices": len(policy.devices),
        "routes": len(policy.routes),
        "rules": len(policy.rules),
        "dropped": dropped,
    }
    if arguments.json:
        print(json.dumps(values, indent=2))
        return 0
    values["dropped"] = [f"{count} {reason}" for reason, count in dropped.items()]
    rows = [{"key": key.replace("_", " "), "value": value} for key, value in values.items()]
    return common.show(arguments, rows, {"key": "WHAT", "value": "VALUE"})
