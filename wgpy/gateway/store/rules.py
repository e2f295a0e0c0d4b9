"""Authorization rules in the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace as replaced
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update

from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.store import groups, lookup, paging
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import rule_groups, rules


def find_all(connection: Connection) -> list[Rule]:
    """All rules, by name."""
    return _rules(connection.execute(select(rules).order_by(rules.c.name)), connection.execute(select(rule_groups)))


def page(connection: Connection, number: int, text: str = "", *, size: int = paging.SIZE) -> paging.Page[Rule]:
    """A page of the rules with `text` in their name, destination or groups, by name."""
    of_group = select(rule_groups.c.rule).where(paging.contains(text, rule_groups.c.group))
    matching = or_(paging.contains(text, rules.c.name, rules.c.destination), rules.c.name.in_(of_group))
    found = paging.find(connection, select(rules).where(matching).order_by(rules.c.name), number, size)
    admitted = select(rule_groups).where(rule_groups.c.rule.in_([row.name for row in found.rows]))
    return replaced(found, rows=_rules(found.rows, connection.execute(admitted)))


def find(connection: Connection, name: str) -> Rule:
    """The rule of that name. Raises ConfigError if there is none."""
    found = {rule.name: rule for rule in find_all(connection)}
    if name not in found:
        raise lookup.missing("rule", name, [*found])
    return found[name]


def add(change: Change, rule: Rule) -> None:
    """Add a rule. Raises ConfigError if its name is taken, or a group does not exist."""
    lookup.check_new(change.connection, "rule", rules.c.name, rule.name)
    change.connection.execute(insert(rules).values(name=rule.name, **_values(rule)))
    _admit(change, rule)
    change.record("rule", rule.name, None, rule.json())


def replace(change: Change, rule: Rule) -> None:
    """Change the rule of that name. Raises ConfigError if there is none, or a group does not exist."""
    before = find(change.connection, rule.name)
    change.connection.execute(update(rules).where(rules.c.name == rule.name).values(**_values(rule)))
    change.connection.execute(delete(rule_groups).where(rule_groups.c.rule == rule.name))
    _admit(change, rule)
    change.record("rule", rule.name, before.json(), rule.json())


def remove(change: Change, name: str) -> None:
    """Remove a rule. Raises ConfigError if there is none of that name."""
    before = find(change.connection, name)
    change.connection.execute(delete(rule_groups).where(rule_groups.c.rule == name))
    change.connection.execute(delete(rules).where(rules.c.name == name))
    change.record("rule", name, before.json(), None)


def _rules(rows: Iterable[Any], admitted: Iterable[Any]) -> list[Rule]:
    groups_of: dict[str, set[str]] = {}
    for each in admitted:
        groups_of.setdefault(each.rule, set()).add(each.group)
    return [
        Rule(
            name=row.name,
            destination=Destination.parse(row.destination),
            groups=frozenset(groups_of.get(row.name, ())),
            everyone=row.everyone,
        )
        for row in rows
    ]


def _values(rule: Rule) -> dict[str, object]:
    return {"destination": str(rule.destination), "everyone": rule.everyone}


def _admit(change: Change, rule: Rule) -> None:
    groups.check(change.connection, rule.groups)
    if rule.groups:
        rows = [{"rule": rule.name, "group": group} for group in sorted(rule.groups)]
        change.connection.execute(insert(rule_groups), rows)
