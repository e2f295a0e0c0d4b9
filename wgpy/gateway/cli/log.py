"""`wgpy gateway log`: the connection log and the audit log."""

from __future__ import annotations

import argparse
from typing import Any, Final

from wgpy.errors import ConfigError
from wgpy.gateway.cli import common
from wgpy.gateway.policy import texts
from wgpy.gateway.policy.connection_log import outcome

_MOST: Final = 1_000_000  # entries


def add(objects: Any) -> None:
    made = common.command(objects, "log", "show the connection log, or with --audit who changed what", _log)
    made.add_argument("--audit", action="store_true", help="show the audit log instead")
    made.add_argument("-n", "--lines", metavar="COUNT", type=int, default=50, help="how many entries (default: 50)")


def _log(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import audit, sessions

    if not 1 <= arguments.lines <= _MOST:
        raise ConfigError(f"lines {arguments.lines}: expected 1 to {_MOST}")
    with common.reading(arguments) as connection:
        if arguments.audit:
            entries = audit.find_last(connection, arguments.lines)
            rows = [
                {**entry, "at": texts.moment(entry["at"]), "what": texts.difference(entry["before"], entry["after"])}
                for entry in entries
            ]
            columns = {"at": "TIME", "who": "WHO", "kind": "KIND", "name": "NAME", "what": "WHAT"}
            return common.show(arguments, entries if arguments.json else rows, columns)
        entries = sessions.last(connection, arguments.lines)
    rows = [{**entry, "status": outcome(entry)} for entry in entries]
    columns = {
        "connection-start-time": "START",
        "status": "STATUS",
        "common-name": "DEVICE",
        "username": "USER",
        "client-ip": "ADDRESS",
        "device-ip": "FROM",
        "ingress-bytes": "BYTES IN",
        "egress-bytes": "BYTES OUT",
        "connection-end-time": "END",
    }
    return common.show(arguments, entries if arguments.json else rows, columns)
