"""One-time links in the database: whoever opens one first acts as its user, once. Of a link, only its hash is here."""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select

from wgpy.gateway.store import lookup
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import links, users

SET_UP: Final = "set-up"
"""The purpose of a link with which a person chooses a password."""
_SIZE: Final = 32  # bytes of a secret


def add(change: Change, purpose: str, user: str, lifetime: float) -> str:
    """Make a link that is good for so many seconds. Returns its secret, which goes into the URL and is kept nowhere.

    It replaces the user's former link of this purpose. Raises ConfigError if there is no such user.
    """
    lookup.check_exists(change.connection, "user", users.c.name, user)
    forget(change, user, purpose)
    change.connection.execute(delete(links).where(links.c.expires_at <= change.now))
    secret = secrets.token_urlsafe(_SIZE)
    row = {"id": _hashed(secret), "purpose": purpose, "user": user, "expires_at": change.now + lifetime}
    change.connection.execute(insert(links).values(row))
    change.record("link", user, None, {"purpose": purpose, "expires_at": row["expires_at"]})
    return secret


def find(connection: Connection, purpose: str, secret: str, wall: float) -> str | None:
    """Whose link it is; None if there is no such link (any more). It stays: mail programs look into links."""
    query = select(links.c.user).where(_valid(purpose, secret, wall))
    user: str | None = connection.execute(query).scalar()
    return user


def purposes(connection: Connection, user: str, wall: float) -> list[str]:
    """The purposes of a user's links that are good now."""
    query = select(links.c.purpose).where(links.c.user == user, links.c.expires_at > wall).order_by(links.c.purpose)
    return list(connection.execute(query).scalars())


def take(change: Change, purpose: str, secret: str) -> str | None:
    """Use a link up. Returns whose it was; None if there is no such link (any more)."""
    user = find(change.connection, purpose, secret, change.now)
    # Two requests at once may both have found it, but only one deletes it.
    used = change.connection.execute(delete(links).where(_valid(purpose, secret, change.now))).rowcount
    if user is None or not used:
        return None
    change.record("link", user, {"purpose": purpose}, {"purpose": purpose, "used": True})
    return user


def forget(change: Change, user: str, purpose: str = "") -> None:
    """Forget a user's links, or those of one purpose."""
    of_user = delete(links).where(links.c.user == user)
    change.connection.execute(of_user.where(links.c.purpose == purpose) if purpose else of_user)


def _valid(purpose: str, secret: str, wall: float) -> ColumnElement[bool]:
    return and_(links.c.id == _hashed(secret), links.c.purpose == purpose, links.c.expires_at > wall)


def _hashed(secret: str) -> str:
    return sha256(secret.encode(errors="replace")).hexdigest()
