"""`wgpy gateway group`."""

from __future__ import annotations

import argparse
from typing import Any

from wgpy.gateway.cli import common
from wgpy.gateway.policy.people import Group


def add(objects: Any) -> None:
    actions = common.kind(objects, "group", "manage groups, which rules are made for")
    for name, summary, call in (("add", "add a group", _add), ("set", "change a group's description", _set)):
        made = common.command(actions, name, summary, call)
        made.add_argument("name", metavar="NAME", help="the group's name")
        made.add_argument("--description", metavar="TEXT", default="", required=name == "set", help="who is in it")
    common.command(actions, "list", "list all groups", _list)
    made = common.command(actions, "remove", "remove a group that no user is in and no rule is for", _remove)
    made.add_argument("name", metavar="NAME", help="the group's name")


def _add(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import groups

    group = Group(name=arguments.name, description=arguments.description)
    with common.changing(arguments) as change:
        groups.add(change, group)
    return common.done(arguments, f"group {group.name} added", group.json())


def _set(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import groups

    group = Group(name=arguments.name, description=arguments.description)
    with common.changing(arguments) as change:
        groups.replace(change, group)
    return common.done(arguments, f"group {group.name} changed", group.json())


def _remove(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import groups

    with common.changing(arguments) as change:
        groups.remove(change, arguments.name)
    return common.done(arguments, f"group {arguments.name} removed", {"name": arguments.name})


def _list(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import groups

    with common.reading(arguments) as connection:
        rows = [group.json() for group in groups.find_all(connection)]
    return common.show(arguments, rows, {"name": "GROUP", "description": "DESCRIPTION"})
