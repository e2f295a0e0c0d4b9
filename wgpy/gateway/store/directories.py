"""Directories in the database, and what is needed to ask them again about a user who has signed in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from wgpy.gateway.policy.directories import Directory, GroupMapping
from wgpy.gateway.policy.logins import IDLE_MAX, LIFETIME
from wgpy.gateway.store import groups, lookup, users
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import checks, logins, sessions
from wgpy.gateway.store.schema import directories as table
from wgpy.gateway.store.schema import users as users_table
from wgpy.gateway.store.vault import Sealed, Vault

INTERVAL: Final = 40.0  # seconds between two checks of a user, so that who is disabled is out within a minute


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
    check_new(change.connection, directory.name)
    groups.check(change.connection, directory.groups.names.values())
    sealed = change.vault.seal(_secret(directory.name), secret)
    change.connection.execute(insert(table).values(**directory.json(), secret=sealed))
    change.record("directory", directory.name, None, directory.json())


def check_new(connection: Connection, name: str) -> None:
    """Raises Conflict if the name of a directory is taken."""
    lookup.check_new(connection, "directory", table.c.name, name)


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


@dataclass(frozen=True, slots=True)
class Due:
    """A user whom the directory is to be asked about again."""

    user: str
    subject: str
    token: bytes = field(repr=False)
    """What the directory's client needs to ask, from the last time that it answered."""
    sealed: bytes = field(repr=False)
    """The same as it is in the database."""


def confirm(change: Change, user: str, token: bytes | None) -> None:
    """Record that the directory has just confirmed a user, and what the next check needs; None if there can be none."""
    if token is None:
        change.connection.execute(delete(checks).where(checks.c.user == user))
        return
    row = {"token": change.vault.seal(_token(user), token), "checked_at": change.now, "confirmed_at": change.now}
    if not change.connection.execute(update(checks).where(checks.c.user == user).values(row)).rowcount:
        change.connection.execute(insert(checks).values(user=user, **row))


def keep(change: Change, user: str, token: bytes) -> None:
    """Keep what the next check of a user needs, whom the directory has not confirmed."""
    sealed = change.vault.seal(_token(user), token)
    change.connection.execute(update(checks).where(checks.c.user == user).values(token=sealed))


def token(connection: Connection, vault: Vault, user: str) -> bytes | None:
    """What is needed to ask a directory about a user; None if nothing is kept."""
    sealed = connection.execute(select(checks.c.token).where(checks.c.user == user)).scalar()
    return None if sealed is None else vault.open(_token(user), sealed)


def sources_due(connection: Connection, wall: float) -> list[str]:
    """The directories that have users to be asked about by now, which is `wall`."""
    query = select(users_table.c.source).distinct().where(_is_due(wall)).order_by(users_table.c.source)
    return list(connection.execute(query.join(checks, checks.c.user == users_table.c.name)).scalars())


def claim_due(change: Change, source: str, most: int) -> list[Due]:
    """Up to `most` users of a directory that are due to be asked about: they are this caller's to ask about.

    Those are due who have a session or are signed in with a browser, and whom no gateway has asked about for INTERVAL.
    Whom the directory has suspended has to sign in again instead.
    """
    query = select(checks, users_table.c.subject).join(users_table, users_table.c.name == checks.c.user)
    query = query.where(users_table.c.source == source, _is_due(change.now))
    query = query.order_by(checks.c.checked_at, func.random()).limit(most).with_for_update(of=checks, skip_locked=True)
    rows = change.connection.execute(query).all()
    mine = update(checks).where(checks.c.user.in_([row.user for row in rows]))
    change.connection.execute(mine.values(checked_at=change.now))
    return [Due(row.user, row.subject, change.vault.open(_token(row.user), row.token), row.token) for row in rows]


def is_current(connection: Connection, due: Due) -> bool:
    """Whether nothing has happened to the user since they were claimed: not removed, and not signed in again."""
    return connection.execute(select(checks.c.token).where(checks.c.user == due.user)).scalar() == due.sealed


def overdue(change: Change, source: str, grace: float, names: Collection[str] | None) -> list[str]:
    """Which of these users, or of all, a directory that cannot be asked has not confirmed for `grace` seconds."""
    query = select(users_table.c.name).join(checks, checks.c.user == users_table.c.name)
    query = query.where(
        users_table.c.source == source, _is_here(change.now), _is_older(checks.c.confirmed_at, grace, change.now)
    )
    if names is not None:
        query = query.where(users_table.c.name.in_(names))
    return list(change.connection.execute(query.order_by(users_table.c.name)).scalars())


def _is_due(wall: float) -> ColumnElement[bool]:
    return and_(_is_here(wall), _is_older(checks.c.checked_at, INTERVAL, wall))


def _is_here(wall: float) -> ColumnElement[bool]:
    """Whether a user has a session, or is signed in with a browser, and is not suspended."""
    connected = select(sessions.c.user).where(sessions.c.ended_at.is_(None))
    signed_in = select(logins.c.user).where(logins.c.seen_at > wall - IDLE_MAX, logins.c.made_at > wall - LIFETIME)
    return and_(users_table.c.suspended.is_(False), or_(checks.c.user.in_(connected), checks.c.user.in_(signed_in)))


def _is_older(moment: ColumnElement[float], seconds: float, wall: float) -> ColumnElement[bool]:
    """Whether a moment is so long ago. One in the future is, too: somebody has set the date back."""
    return or_(moment <= wall - seconds, moment > wall)


_IDENTITY: Final = {"issuer", "url", "base"}
"""Settings that say which directory it is: with others, a subject is somebody else."""


def _check_unused(connection: Connection, name: str, what: str) -> None:
    if found := _users(connection, name):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise lookup.Conflict(f"directory {name}: user {found[0]}{more} comes from it, so {what}")


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


SEALED: Final = (
    Sealed(table.c.secret, table.c.name, _secret),
    Sealed(checks.c.token, checks.c.user, _token),
)
