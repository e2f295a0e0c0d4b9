"""`wgpy gateway session`."""

from __future__ import annotations

import argparse
from typing import Any

from wgpy.gateway.cli import common


def add(objects: Any) -> None:
    actions = common.kind(objects, "session", "list and terminate sessions")
    common.command(actions, "list", "list the sessions that are under way", _list)
    made = common.command(
        actions,
        "terminate",
        "end a session: its traffic stops within a second",
        _terminate,
        epilog="Where people sign in, they have to do so again. Where a key is enough, the device may connect at once "
        "again; `wgpy gateway device disable` keeps it out.",
    )
    made.add_argument("name", metavar="NAME", help="the session's id, or the name of a device or user")


def _list(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import sessions

    with common.reading(arguments) as connection:
        rows = [{"id": row["id"], **row["entry"]} for row in sessions.under_way(connection)]
    columns = {
        "id": "ID",
        "common-name": "DEVICE",
        "username": "USER",
        "client-ip": "ADDRESS",
        "device-ip": "FROM",
        "connection-start-time": "SINCE",
        "ingress-bytes": "BYTES IN",
        "egress-bytes": "BYTES OUT",
    }
    return common.show(arguments, rows, columns)


def _terminate(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import sessions

    with common.changing(arguments) as change:
        ended = sessions.terminate(change, arguments.name)
    return common.done(arguments, f"terminated: {', '.join(ended)}", {"terminated": ended})
