"""`wgpy gateway status`."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from typing import Any

from wgpy.gateway.cli import common


def add(objects: Any) -> None:
    made = common.command(
        objects,
        "status",
        "say whether the gateway runs and is healthy, and how many of what it has",
        _status,
        epilog="The exit status is 0 if it runs and is healthy, and else 1: then the line `why not` says why.",
    )
    common.node_option(made)


def _status(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.service.status import status

    with closing(common.database(arguments)) as database:
        values, now = status(database), database.clock()
    if arguments.json:
        print(json.dumps(values, indent=2))
        return int(not values["healthy"])
    values["dropped"] = [f"{count} {reason}" for reason, count in values["dropped"].items()]
    values["nodes"] = [_node(node, now) for node in values["nodes"]]
    rows = [{"key": key.replace("_", " "), "value": value} for key, value in values.items()]
    common.show(arguments, rows, {"key": "WHAT", "value": "VALUE"})
    return int(not values["healthy"])


def _node(node: dict[str, Any], now: float) -> str:
    """A node in a few words."""
    from wgpy.gateway.store.nodes import LOST

    age = now - node["seen_at"]
    state = f"not seen for {age:.0f} s" if age > LOST else node["ailment"] or "well"
    return f"{node['name']}: {state}, {node['sessions']} sessions"
