"""Authorization rules in the database."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.store import groups, lookup
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import rule_groups, rules


def find_all(connection: Connection) -> list[Rule]:
    """All rules, by name."""
    of: dict[str, set[str]] = {}
    for rule, group in connection.execute(select(rule_groups.c.rule, rule_groups.c.group)):
        of.setdefault(rule, set()).add(group)
    return [
        Rule(
            name=row.name,
            destination=Destination.parse(row.destination),
            groups=frozenset(of.get(row.name, ())),
            everyone=row.everyone,
        )
        for row in connection.execute(select(rules).order_by(rules.c.name))
    ]


def find(connection: Connection, name: str) -> Rule:
    """The rule of that name. Raises ConfigError if there is none."""
    for rule in find_all(connection):
        if rule.name == name:
            return rule
    raise lookup.missing("rule", name, lookup.names(connection, rules.c.name))


def add(change: Change, rule: Rule) -> None:
    """Add a rule. Raises ConfigError if its name is taken, or a group does not exist."""
    lookup.check_new(change.connection, "rule", rules.c.name, rule.name)
    groups.check(change.connection, rule.groups)
    row = {"name": rule.name, "destination": str(rule.destination), "everyone": rule.everyone}
    change.connection.execute(insert(rules).values(row))
    if rule.groups:
        rows = [{"rule": rule.name, "group": group} for group in sorted(rule.groups)]
        change.connection.execute(insert(rule_groups), rows)
    change.record("rule", rule.name, None, rule.json())


def remove(change: Change, name: str) -> None:
    """Remove a rule. Raises ConfigError if there is none of that name."""
    before = find(change.connection, name)
    change.connection.execute(delete(rule_groups).where(rule_groups.c.rule == name))
    change.connection.execute(delete(rules).where(rules.c.name == name))
    change.record("rule", name, before.json(), None)
