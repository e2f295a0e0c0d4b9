"""`wgpy gateway rule`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from wgpy.errors import ConfigError
from wgpy.gateway.cli import common
from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule


def add(objects: Any) -> None:
    actions = common.kind(objects, "rule", "manage authorization rules: which group may reach what")
    made = common.command(
        actions,
        "add",
        "allow groups, or everyone, to reach a destination",
        _add,
        epilog="The most specific prefix that contains a destination decides alone: a rule for 10.0.1.0/24 takes that "
        "network away from groups that have only a rule for 10.0.0.0/16. `wgpy gateway test` says which rule decides.",
    )
    made.add_argument("name", metavar="NAME", help="a name for the rule")
    made.add_argument(
        "destination",
        metavar="DESTINATION",
        help="a prefix, perhaps with ports: 10.0.0.0/8, 192.168.1.5:443/tcp, [2001:db8::/32]:443/udp, 10.0.0.0/8/icmp",
    )
    made.add_argument(
        "--group", metavar="GROUP", action="append", default=[], help="a group that it is for; may be repeated"
    )
    made.add_argument("--everyone", action="store_true", help="the rule is for all users")
    made = common.command(
        actions,
        "set",
        "change a rule",
        _set,
        epilog="--group and --everyone replace all that the rule was for. Connections that it allows no more are cut.",
    )
    made.add_argument("name", metavar="NAME", help="the rule's name")
    made.add_argument("--destination", metavar="DESTINATION", help="another destination")
    made.add_argument(
        "--group", metavar="GROUP", action="append", default=[], help="a group that it is for; may be repeated"
    )
    made.add_argument("--everyone", action="store_true", help="the rule is for all users")
    common.command(actions, "list", "list all rules", _list)
    made = common.command(actions, "remove", "remove a rule; connections that it allowed are cut", _remove)
    made.add_argument("name", metavar="NAME", help="the rule's name")


def _add(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import rules

    rule = Rule(
        name=arguments.name,
        destination=Destination.parse(arguments.destination),
        groups=frozenset(arguments.group),
        everyone=arguments.everyone,
    )
    with common.changing(arguments) as change:
        rules.add(change, rule)
    return common.done(arguments, f"rule {rule} added", rule.json())


def _set(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import rules

    given: dict[str, Any] = {}
    if arguments.destination is not None:
        given["destination"] = Destination.parse(arguments.destination)
    if arguments.group or arguments.everyone:
        given |= {"groups": frozenset(arguments.group), "everyone": arguments.everyone}
    if not given:
        raise ConfigError("rule set: nothing to change; give --destination, --group or --everyone")
    with common.changing(arguments) as change:
        rule = replace(rules.find(change.connection, arguments.name), **given)
        rules.replace(change, rule)
    return common.done(arguments, f"rule {rule} changed", rule.json())


def _remove(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import rules

    with common.changing(arguments) as change:
        rules.remove(change, arguments.name)
    return common.done(arguments, f"rule {arguments.name} removed", {"name": arguments.name})


def _list(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import rules

    with common.reading(arguments) as connection:
        rows = [rule.json() for rule in rules.find_all(connection)]
    return common.show(
        arguments, rows, {"name": "RULE", "destination": "DESTINATION", "groups": "GROUPS", "everyone": "EVERYONE"}
    )
