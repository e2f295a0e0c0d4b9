"""`wgpy gateway status`."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from typing import Any

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
    from wgpy.gateway.service.status import status

    with closing(common.database(arguments)) as database:
        values = status(database)
    if arguments.json:
        print(json.dumps(values, indent=2))
        return int(not values["healthy"])
    values["dropped"] = [f"{count} {reason}" for reason, count in values["dropped"].items()]
    rows = [{"key": key.replace("_", " "), "value": value} for key, value in values.items()]
    common.show(arguments, rows, {"key": "WHAT", "value": "VALUE"})
    return int(not values["healthy"])
