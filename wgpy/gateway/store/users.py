"""Users in the database."""

from __future__ import annotations

from dataclasses import replace as changed

from sqlalchemy import Connection, delete, insert, select, update

from wgpy.gateway.policy.people import User
from wgpy.gateway.store import credentials, devices, groups, links, logins, lookup
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import memberships, users


def find_all(connection: Connection) -> list[User]:
    """All users, by name."""
    members: dict[str, set[str]] = {}
    for user, group in connection.execute(select(memberships.c.user, memberships.c.group)):
        members.setdefault(user, set()).add(group)
    return [
        User(**row._mapping, groups=frozenset(members.get(row.name, ())))
        for row in connection.execute(select(users).order_by(users.c.name))
    ]


def find(connection: Connection, name: str) -> User:
    """The user of that name. Raises ConfigError if there is none."""
    row = connection.execute(select(users).where(users.c.name == name)).first()
    if row is None:
        raise lookup.missing("user", name, lookup.names(connection, users.c.name))
    of = connection.execute(select(memberships.c.group).where(memberships.c.user == name)).scalars()
    return User(**row._mapping, groups=frozenset(of))


def add(change: Change, user: User) -> None:
    """Add a user. Raises ConfigError if the name is taken, or a group does not exist."""
    lookup.check_new(change.connection, "user", users.c.name, user.name)
    change.connection.execute(insert(users).values(name=user.name, **_values(user)))
    _join(change, user)
    change.record("user", user.name, None, user.json())


def replace(change: Change, user: User) -> None:
    """Change the user of that name. Raises ConfigError if there is none, or a group does not exist.

    Who is disabled is signed out everywhere, and stays so when enabled again.
    """
    before = find(change.connection, user.name)
    change.connection.execute(update(users).where(users.c.name == user.name).values(**_values(user)))
    change.connection.execute(delete(memberships).where(memberships.c.user == user.name))
    _join(change, user)
    if not user.enabled:
        logins.end_all(change, user.name)
        links.forget(change, user.name)
    change.record("user", user.name, before.json(), user.json())


def expire(change: Change, wall: float) -> None:
    """Record who has lost access by now, which is `wall` in seconds since 1970."""
    over = select(users.c.name).where(users.c.expires <= wall, users.c.expired.is_(False))
    for name in list(change.connection.execute(over).scalars()):
        before = find(change.connection, name)
        change.connection.execute(update(users).where(users.c.name == name).values(expired=True))
        change.record("user", name, before.json(), changed(before, expired=True).json())


def remove(change: Change, name: str) -> None:
    """Remove a user with all devices. Raises ConfigError if there is none."""
    before = find(change.connection, name)
    for device in devices.find_all(change.connection):
        if device.user == name:
            devices.remove(change, device.name)
    logins.end_all(change, name)
    links.forget(change, name)
    credentials.remove(change, name)
    change.connection.execute(delete(memberships).where(memberships.c.user == name))
    change.connection.execute(delete(users).where(users.c.name == name))
    change.record("user", name, before.json(), None)


def _values(user: User) -> dict[str, object]:
    return {"enabled": user.enabled, "expires": user.expires, "expired": user.expired}


def _join(change: Change, user: User) -> None:
    groups.check(change.connection, user.groups)
    if user.groups:
        rows = [{"user": user.name, "group": group} for group in sorted(user.groups)]
        change.connection.execute(insert(memberships), rows)
