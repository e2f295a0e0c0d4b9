"""`wgpy gateway user`."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

from wgpy.gateway.cli import common, credentials
from wgpy.gateway.policy import texts
from wgpy.gateway.policy.people import User


def add(objects: Any) -> None:
    actions = common.kind(objects, "user", "manage users, who have devices and are in groups")
    for name, summary, call in (("add", "add a user", _add), ("set", "change a user's groups and last day", _set)):
        made = common.command(actions, name, summary, call)
        made.add_argument("name", metavar="NAME", help="the user's name, which may be an e-mail address")
        made.add_argument(
            "--group", metavar="GROUP", action="append", help="a group that the user is in; may be repeated"
        )
        made.add_argument("--expires", metavar="DATE", help="the last day, or a moment; `never` for none")
    common.command(actions, "list", "list all users", _list)
    for name, summary, call in (
        ("enable", "let a user in again", _enable),
        ("disable", "end a user's sessions, and let none begin", _enable),
        ("remove", "remove a user with all devices", _remove),
    ):
        made = common.command(actions, name, summary, call)
        made.add_argument("name", metavar="NAME", help="the user's name")
        made.set_defaults(enabled=name == "enable")
    credentials.add(actions)


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if arguments.group is not None:
        given["groups"] = frozenset(arguments.group)
    if arguments.expires is not None:
        given["expired"] = False  # a new date is a new decision; a date that is over expires the user again
        given["expires"] = None if arguments.expires == "never" else texts.date(arguments.expires)
    return given


def _add(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import users

    user = User(name=arguments.name, **_given(arguments))
    with common.changing(arguments) as change:
        users.add(change, user)
    return common.done(arguments, f"user {user.name} added", user.json())


def _set(arguments: argparse.Namespace) -> int:
    return _replace(arguments, _given(arguments), "changed")


def _enable(arguments: argparse.Namespace) -> int:
    return _replace(arguments, {"enabled": arguments.enabled}, "enabled" if arguments.enabled else "disabled")


def _replace(arguments: argparse.Namespace, given: dict[str, Any], what: str) -> int:
    from wgpy.gateway.store import users

    with common.changing(arguments) as change:
        user = replace(users.find(change.connection, arguments.name), **given)
        users.replace(change, user)
    if user.enabled and user.is_expired(time.time()):
        what += f", but expired: `wgpy gateway user set {user.name} --expires DATE` gives another date"
    return common.done(arguments, f"user {user.name} {what}", user.json())


def _remove(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import users

    with common.changing(arguments) as change:
        users.remove(change, arguments.name)
    return common.done(arguments, f"user {arguments.name} removed, with all devices", {"name": arguments.name})


def _list(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import users

    with common.reading(arguments) as connection:
        rows = [user.json() for user in users.find_all(connection)]
    if not arguments.json:
        rows = [
            {
                **row,
                "enabled": f"no, by {row['source']}" if row["enabled"] and row["suspended"] else row["enabled"],
                "expires": f"{texts.expiry(row['expires'])}{' (expired)' * row['expired']}",
            }
            for row in rows
        ]
    columns = {"name": "USER", "source": "SOURCE", "groups": "GROUPS", "enabled": "ENABLED", "expires": "EXPIRES"}
    return common.show(arguments, rows, columns)
