"""Users in the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace as changed
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from wgpy.errors import ConfigError
from wgpy.gateway.policy.directories import GroupMapping
from wgpy.gateway.policy.people import LOCAL, Person, User
from wgpy.gateway.store import credentials, devices, groups, links, logins, lookup, paging
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import checks, directories, memberships, users
from wgpy.gateway.store.schema import groups as groups_table


def find_all(connection: Connection) -> list[User]:
    """All users, by name."""
    return _users(
        connection.execute(select(users).order_by(users.c.name)).all(), connection.execute(select(memberships))
    )


def page(
    connection: Connection, number: int, text: str = "", group: str = "", *, source: str = "", size: int = paging.SIZE
) -> paging.Page[User]:
    """A page of the users with `text` in their name or address, in `group` and from `source`, if given; by name."""
    matching = paging.contains(text, users.c.name, users.c.display_name, users.c.email)
    query = select(users).where(matching).order_by(users.c.name)
    if source:
        query = query.where(users.c.source == source)
    if group:
        query = query.where(users.c.name.in_(select(memberships.c.user).where(memberships.c.group == group)))
    found = paging.find(connection, query, number, size)
    members = select(memberships).where(memberships.c.user.in_([row.name for row in found.rows]))
    return changed(found, rows=_users(found.rows, connection.execute(members)))


def find(connection: Connection, name: str) -> User:
    """The user of that name. Raises ConfigError if there is none."""
    row = connection.execute(select(users).where(users.c.name == name)).first()
    if row is None:
        raise lookup.missing("user", name, lookup.names(connection, users.c.name))
    (found,) = _users([row], connection.execute(select(memberships).where(memberships.c.user == name)))
    return found


def origin(connection: Connection, name: str) -> tuple[str, str | None] | None:
    """The source and the subject of the user of that name; None if there is none.

    For a name that a stranger has sent: unlike `find`, it costs the same whether there is such a user or not.
    """
    row = connection.execute(select(users.c.source, users.c.subject).where(users.c.name == name)).first()
    return None if row is None else (row.source, row.subject)


def add(change: Change, user: User) -> None:
    """Add a user. Raises ConfigError if the name is taken, or a group does not exist."""
    lookup.check_new(change.connection, "user", users.c.name, user.name)
    change.connection.execute(insert(users).values(name=user.name, **_values(user)))
    _join(change, user)
    change.record("user", user.name, None, user.json())


def replace(change: Change, user: User) -> None:
    """Change the user of that name. Who is disabled is signed out everywhere, and stays so when enabled again.

    Raises ConfigError if there is none, a group does not exist, or the user's directory says what the groups are.
    """
    before = find(change.connection, user.name)
    if before.source != LOCAL and user.groups != before.groups:
        raise ConfigError(
            f"user {user.name}: directory {before.source} says what groups the user is in; change them there, or which "
            f"of ours they are: `wgpy gateway directory set {before.source} -h`"
        )
    _write(change, before, user)


def take_in(change: Change, person: Person) -> User:
    """The user who a person is that has just proved it: a new one, if a directory sends somebody for the first time.

    The user gets the groups that the directory says, and is no longer suspended; the name stays what it first was.
    Raises ConfigError if the name is taken by somebody else, or there is no such user or directory.
    """
    if person.source == LOCAL:
        return find(change.connection, person.name)
    row = change.connection.execute(select(directories.c.groups).where(directories.c.name == person.source)).first()
    if row is None:
        raise lookup.missing("directory", person.source, lookup.names(change.connection, directories.c.name))
    known = lookup.names(change.connection, groups_table.c.name)
    is_same = (users.c.source == person.source) & (users.c.subject == person.subject)
    name = change.connection.execute(select(users.c.name).where(is_same)).scalar()
    values: dict[str, Any] = {
        "groups": GroupMapping(**row.groups).ours(person.groups, known),
        "display_name": person.display_name,
        "email": person.email,
        "suspended": False,
    }
    if name is not None:
        before = find(change.connection, name)
        return _write(change, before, changed(before, **values))
    if taken := change.connection.execute(select(users.c.source).where(users.c.name == person.name)).scalar():
        whose = "a local user" if taken == LOCAL else f"a user of directory {taken}"
        if taken == person.source:
            whose = "another person of the same directory"
        raise ConfigError(
            f"user {person.name}: {whose} has this name already; an administrator has to remove that user, or choose "
            f"another claim or attribute for names of directory {person.source}"
        )
    user = User(name=person.name, source=person.source, subject=person.subject, **values)
    add(change, user)
    return user


def suspend(change: Change, name: str) -> None:
    """Record that the user's directory has disabled or removed the user: browsers and devices have to sign in again.

    Raises ConfigError if there is no such user.
    """
    before = find(change.connection, name)
    devices.sign_out(change, name)
    _write(change, before, changed(before, suspended=True))


def _write(change: Change, before: User, user: User) -> User:
    if user == before:
        return user
    change.connection.execute(update(users).where(users.c.name == user.name).values(**_values(user)))
    change.connection.execute(delete(memberships).where(memberships.c.user == user.name))
    _join(change, user)
    if not user.is_allowed:
        logins.end_all(change, user.name)
        links.forget(change, user.name)
    change.record("user", user.name, before.json(), user.json())
    return user


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
    for table in (memberships, checks):
        change.connection.execute(delete(table).where(table.c.user == name))
    change.connection.execute(delete(users).where(users.c.name == name))
    change.record("user", name, before.json(), None)


def _users(rows: Iterable[Any], members: Iterable[Any]) -> list[User]:
    groups_of: dict[str, set[str]] = {}
    for member in members:
        groups_of.setdefault(member.user, set()).add(member.group)
    return [User(**row._mapping, groups=frozenset(groups_of.get(row.name, ()))) for row in rows]


def _values(user: User) -> dict[str, object]:
    values = user.json()
    del values["name"], values["groups"]
    return values


def _join(change: Change, user: User) -> None:
    groups.check(change.connection, user.groups)
    if user.groups:
        rows = [{"user": user.name, "group": group} for group in sorted(user.groups)]
        change.connection.execute(insert(memberships), rows)
