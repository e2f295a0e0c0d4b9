"""Who is signed in with which browser. Of a cookie, only its hash is here."""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, delete, insert, or_, select, update

from wgpy.gateway.policy.logins import IDLE_MAX, LIFETIME, Login
from wgpy.gateway.store import lookup
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import logins, users

MOST: Final = 20  # browsers in which one user is signed in; another one signs the first one out
_SIZE: Final = 32  # bytes of a cookie


def add(change: Change, user: str, strength: str, address: str) -> str:
    """Sign a user in: `strength` says what was proved, and `address` where from. Returns the new cookie's value.

    Only somebody who has just proved who they are may cause this, because it is recorded. Sign-ins that are over are
    forgotten. Raises ConfigError if there is no such user.
    """
    lookup.check_exists(change.connection, "user", users.c.name, user)
    over = or_(logins.c.seen_at <= change.now - IDLE_MAX, logins.c.made_at <= change.now - LIFETIME)
    change.connection.execute(delete(logins).where(over))
    for login in find_all(change.connection, user)[MOST - 1 :]:
        change.connection.execute(delete(logins).where(logins.c.id == login.id))
    cookie = secrets.token_urlsafe(_SIZE)
    login = Login(
        id=hashed(cookie), user=user, made_at=change.now, seen_at=change.now, strength=strength, address=address
    )
    row = {column.name: getattr(login, column.name) for column in logins.columns}
    change.connection.execute(insert(logins).values(row))
    change.record("login", user, None, login.json())
    return cookie


def find(connection: Connection, cookie: str, wall: float) -> Login | None:
    """The sign-in of a cookie; None if there is none, or it is over by now.

    Whether its user may still come in is another question, which `store.users` answers.
    """
    row = connection.execute(select(logins).where(logins.c.id == hashed(cookie))).first()
    login = Login(**row._mapping) if row else None
    return login if login and not login.is_over(wall) else None


def find_all(connection: Connection, user: str) -> list[Login]:
    """A user's sign-ins, the newest first; those of them that are over may be among them."""
    query = select(logins).where(logins.c.user == user).order_by(logins.c.made_at.desc(), logins.c.id)
    return [Login(**row._mapping) for row in connection.execute(query)]


def seen(change: Change, login: Login) -> None:
    """Record that a request came just now."""
    change.connection.execute(update(logins).where(logins.c.id == login.id).values(seen_at=change.now))


def end(change: Change, login: Login) -> None:
    """Sign a browser out."""
    if change.connection.execute(delete(logins).where(logins.c.id == login.id)).rowcount:
        change.record("login", login.user, login.json(), None)


def forget(change: Change, cookie: str) -> None:
    """Sign out the browser that has this cookie, if it is one."""
    row = change.connection.execute(select(logins).where(logins.c.id == hashed(cookie))).first()
    if row:
        end(change, Login(**row._mapping))


def end_all(change: Change, user: str) -> int:
    """Sign a user out everywhere. Returns the number of browsers."""
    found = find_all(change.connection, user)
    for login in found:
        end(change, login)
    return len(found)


def hashed(cookie: str) -> str:
    """What is kept of a cookie: it is too long to be guessed, so a plain SHA-256 gives nothing away."""
    return sha256(cookie.encode(errors="replace")).hexdigest()
