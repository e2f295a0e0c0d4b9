"""`wgpy gateway status`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from wgpy.errors import NetworkError
from wgpy.gateway.cli import common


def add(objects: Any) -> None:
    common.command(
        objects,
        "status",
        "say whether the gateway runs and is healthy, and how many of what it has",
        _status,
        epilog="The exit status is 0 if it runs and is healthy, and else 1: then the line `why not` says why.",
    )


def _status(arguments: argparse.Namespace) -> int:
    from wgpy import control
    from wgpy.gateway.enforcement.nft import Firewall
    from wgpy.gateway.store import sessions, state

    database = common.database(arguments)
    policy, _ = state.read(database)
    endpoint = policy.endpoint
    with database.read() as connection:
        live = len(sessions.under_way(connection))
    running, interface_is_up = database.is_running(), control.is_up(endpoint.interface)
    dropped: dict[str, int] = {}
    try:
        firewall = Firewall(endpoint.interface, endpoint.port)
        ailment = "" if firewall.exists() else "its table of nftables is missing"
        dropped = {} if ailment else firewall.dropped()
    except NetworkError as error:
        ailment = str(error)
    if not running:
        ailment = "`wgpy gateway run` does not run"
    elif said := database.ailment():
        ailment = said
    elif not interface_is_up:
        ailment = f"the interface {endpoint.interface} is missing"
    values: dict[str, Any] = {
        "running": running,
        "healthy": not ailment,
        "why_not": ailment,
        "endpoint": f"{endpoint.host}:{endpoint.port}",
        "interface": endpoint.interface,
        "interface_is_up": interface_is_up,
        "sessions": live,
        "users": len(policy.users),
        "devices": len(policy.devices),
        "routes": len(policy.routes),
        "rules": len(policy.rules),
        "dropped": dropped,
    }
    if arguments.json:
        print(json.dumps(values, indent=2))
        return int(not values["healthy"])
    values["dropped"] = [f"{count} {reason}" for reason, count in dropped.items()]
    rows = [{"key": key.replace("_", " "), "value": value} for key, value in values.items()]
    common.show(arguments, rows, {"key": "WHAT", "value": "VALUE"})
    return int(not values["healthy"])
