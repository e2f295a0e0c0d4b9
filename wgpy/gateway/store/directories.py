"""Directories in the database, and what is needed to ask them again about a user who has signed in."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from wgpy.errors import ConfigError
from wgpy.gateway.policy.directories import Directory, GroupMapping
from wgpy.gateway.store import groups, lookup, users
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import checks
from wgpy.gateway.store.schema import directories as table
from wgpy.gateway.store.schema import users as users_table
from wgpy.gateway.store.vault import Vault


def find_all(connection: Connection) -> list[Directory]:
    """All directories, by name."""
    return [_value(row) for row in connection.execute(select(table).order_by(table.c.name))]


def find(connection: Connection, name: str) -> Directory:
    """The directory of that name. Raises ConfigError if there is none."""
    return _value(_row(connection, name))


def secret(connection: Connection, vault: Vault, name: str) -> bytes:
    """The directory's secret: an OIDC client's, or the password of a bind; empty if it has none. Raises ConfigError."""
    return vault.open(_secret(name), _row(connection, name).secret)


def add(change: Change, directory: Directory, secret: bytes) -> None:
    """Add a directory. Raises ConfigError if its name is taken, or a group of ours does not exist."""
    lookup.check_new(change.connection, "directory", table.c.name, directory.name)
    groups.check(change.connection, directory.groups.names.values())
    sealed = change.vault.seal(_secret(directory.name), secret)
    change.connection.execute(insert(table).values(**directory.json(), secret=sealed))
    change.record("directory", directory.name, None, directory.json())


def replace(change: Change, directory: Directory, secret: bytes | None = None) -> None:
    """Change the directory of that name, and its secret if one is given.

    Raises ConfigError: there is none, a group of ours does not exist, or it would be another directory while users
    are here that come from it, who would be other people then.
    """
    before = find(change.connection, directory.name)
    groups.check(change.connection, directory.groups.names.values())
    for key in _IDENTITY & {*before.settings, *directory.settings}:
        if before.settings.get(key) != directory.settings.get(key):
            _check_unused(change.connection, directory.name, f"its {key} cannot be changed")
    values = directory.json()
    if secret is not None:
        values["secret"] = change.vault.seal(_secret(directory.name), secret)
    change.connection.execute(update(table).where(table.c.name == directory.name).values(values))
    after = {**directory.json(), **({"secret": "changed"} if secret is not None else {})}
    change.record("directory", directory.name, before.json(), after)


def remove(change: Change, name: str, *, with_users: bool = False) -> list[str]:
    """Remove a directory; returns which users were removed with it.

    Raises ConfigError if there is none, or users come from it who are not to be removed.
    """
    before = find(change.connection, name)
    if not with_users:
        _check_unused(change.connection, name, "it cannot be removed without them (--with-users)")
    gone = _users(change.connection, name)
    for user in gone:
        users.remove(change, user)
    change.connection.execute(delete(table).where(table.c.name == name))
    change.record("directory", name, before.json(), None)
    return gone


class Due(NamedTuple):
    """A user whom the directory is to be asked about again."""

    user: str
    source: str
    subject: str
    token: bytes
    """What the directory's client needs to ask, from the last time that it answered."""
    confirmed_at: float
    """When the directory last confirmed the user, in seconds since 1970."""


def confirm(change: Change, user: str, token: bytes) -> None:
    """Record that the directory has just confirmed a user, and what the next check needs."""
    row = {
        "token": change.vault.seal(_token(user), token),
        "checked_at": change.now,
        "confirmed_at": change.now,
    }
    done = change.connection.execute(update(checks).where(checks.c.user == user).values(row))
    if not done.rowcount:
        change.connection.execute(insert(checks).values(user=user, **row))


def claim_due(change: Change, interval: float, most: int) -> list[Due]:
    """Up to `most` users that no gateway has asked about for `interval` seconds: those are this caller's to ask about.

    Whom the directory has suspended has to sign in again and is not asked about. A check that is dated in the future is
    due, too: somebody has set the date back.
    """
    query = (
        select(checks, users_table.c.source, users_table.c.subject)
        .join(users_table, users_table.c.name == checks.c.user)
        .where(
            users_table.c.suspended.is_(False),
            (checks.c.checked_at <= change.now - interval) | (checks.c.checked_at > change.now),
        )
        .order_by(checks.c.checked_at)
        .limit(most)
    )
    rows = change.connection.execute(query).all()
    mine = update(checks).where(checks.c.user.in_([row.user for row in rows]))
    change.connection.execute(mine.values(checked_at=change.now))
    return [
        Due(row.user, row.source, row.subject, change.vault.open(_token(row.user), row.token), row.confirmed_at)
        for row in rows
    ]


_IDENTITY = {"issuer", "url", "base"}
"""Settings that say which directory it is: with others, a subject is somebody else."""


def _check_unused(connection: Connection, name: str, what: str) -> None:
    if found := _users(connection, name):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise ConfigError(f"directory {name}: user {found[0]}{more} comes from it, so {what}")


def _users(connection: Connection, name: str) -> list[str]:
    query = select(users_table.c.name).where(users_table.c.source == name).order_by(users_table.c.name)
    return list(connection.execute(query).scalars())


def _row(connection: Connection, name: str) -> Any:
    row = connection.execute(select(table).where(table.c.name == name)).first()
    if row is None:
        raise lookup.missing("directory", name, lookup.names(connection, table.c.name))
    return row


def _value(row: Any) -> Directory:
    return Directory(
        name=row.name,
        kind=row.kind,
        settings=row.settings,
        groups=GroupMapping(**row.groups),
        grace=row.grace,
    )


def _secret(name: str) -> str:
    return f"secret of directory {name}"


def _token(user: str) -> str:
    return f"token of user {user}"
