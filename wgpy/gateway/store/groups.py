"""Groups in the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace as replaced

from sqlalchemy import Connection, delete, insert, select, update

from wgpy.gateway.policy.people import Group
from wgpy.gateway.store import lookup, paging
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import directories, groups, memberships, rule_groups


def find_all(connection: Connection) -> list[Group]:
    """All groups, by name."""
    return [Group(**row._mapping) for row in connection.execute(select(groups).order_by(groups.c.name))]


def page(connection: Connection, number: int, text: str = "", *, size: int = paging.SIZE) -> paging.Page[Group]:
    """A page of the groups with `text` in their name or description, by name."""
    matching = paging.contains(text, groups.c.name, groups.c.description)
    found = paging.find(connection, select(groups).where(matching).order_by(groups.c.name), number, size)
    return replaced(found, rows=[Group(**row._mapping) for row in found.rows])


def find(connection: Connection, name: str) -> Group:
    """The group of that name. Raises ConfigError if there is none."""
    row = connection.execute(select(groups).where(groups.c.name == name)).first()
    if row is None:
        raise lookup.missing("group", name, lookup.names(connection, groups.c.name))
    return Group(**row._mapping)


def check(connection: Connection, wanted: Iterable[str]) -> None:
    """Raises ConfigError if one of the groups does not exist: a misspelt name would be a rule for no one."""
    known = lookup.names(connection, groups.c.name)
    for name in sorted(wanted):
        if name not in known:
            raise lookup.missing("group", name, known)


def add(change: Change, group: Group) -> None:
    """Add a group. Raises ConfigError if its name is taken."""
    lookup.check_new(change.connection, "group", groups.c.name, group.name)
    change.connection.execute(insert(groups).values(name=group.name, description=group.description))
    change.record("group", group.name, None, group.json())


def replace(change: Change, group: Group) -> None:
    """Change the description of the group of that name. Raises ConfigError if there is none."""
    before = find(change.connection, group.name)
    change.connection.execute(update(groups).where(groups.c.name == group.name).values(description=group.description))
    change.record("group", group.name, before.json(), group.json())


def remove(change: Change, name: str) -> None:
    """Remove a group that no user is in and no rule is for. Raises ConfigError if one is."""
    group = find(change.connection, name)
    for kind, column in (("user", memberships.c.user), ("rule", rule_groups.c.rule)):
        query = select(column).where(column.table.c.group == name).order_by(column)
        if uses := list(change.connection.execute(query).scalars()):
            more = f" and {len(uses) - 1} more" if len(uses) > 1 else ""
            raise lookup.Conflict(f"group {name}: {kind} {uses[0]}{more} uses it; change that first")
    for row in change.connection.execute(select(directories.c.name, directories.c.groups).order_by(directories.c.name)):
        if name in row.groups["names"].values():
            raise lookup.Conflict(f"group {name}: directory {row.name} uses it; change that first")
    change.connection.execute(delete(groups).where(groups.c.name == name))
    change.record("group", name, group.json(), None)
