"""What users sign in with, in the database: a password's hash, the seed of an authenticator app, recovery codes.

Passkeys are in `store.passkeys`. Nobody can sign in with what is here: the password is hashed by argon2, the seed is
sealed, and of a recovery code, which is too long to be guessed, only the SHA-256 is kept.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from wgpy.errors import ConfigError
from wgpy.gateway.policy.people import LOCAL
from wgpy.gateway.store import lookup, passkeys
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import credentials, users
from wgpy.gateway.store.vault import Sealed

_HANDLE: Final = 16  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a user signs in with. Its text has no secret."""

    user: str
    handle: bytes
    """What passkeys call the user: 16 random bytes, because WebAuthn wants no name there (section 14.6.1)."""
    password: str = ""
    """The password's hash as argon2 writes it; empty if there is no password here."""
    changed_at: float = 0.0
    """When the password was set, in seconds since 1970."""
    has_totp: bool = False
    recovery: int = 0
    """The number of recovery codes that are left."""

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {
            "password_changed_at": self.changed_at if self.password else None,
            "totp": self.has_totp,
            "recovery_codes": self.recovery,
        }


def find(connection: Connection, user: str) -> Credentials | None:
    """What the user signs in with; None if nothing was ever set."""
    row = connection.execute(select(credentials).where(credentials.c.user == user)).first()
    if row is None:
        return None
    return Credentials(
        user=user,
        handle=row.handle,
        password=row.password,
        changed_at=row.changed_at,
        has_totp=row.totp is not None,
        recovery=len(row.recovery),
    )


def has_second_factor(connection: Connection, user: str) -> bool:
    """Whether the user has an authenticator app or a passkey."""
    found = find(connection, user)
    return bool(found and found.has_totp) or bool(passkeys.find_all(connection, user))


def check_local(connection: Connection, user: str) -> None:
    """Raises ConfigError if there is no such user, or a directory has the user's password."""
    lookup.check_exists(connection, "user", users.c.name, user)
    source = connection.execute(select(users.c.source).where(users.c.name == user)).scalar()
    if source != LOCAL:
        raise ConfigError(f"user {user}: comes from directory {source}, so the password is to be changed there")


def set_password(change: Change, user: str, encoded: str) -> None:
    """Set the hash of a local user's password. Raises ConfigError if there is no such user."""
    check_local(change.connection, user)
    _update(change, user, password=encoded, changed_at=change.now)


def rehash(change: Change, user: str, former: str, encoded: str) -> None:
    """Replace the hash of the same password by one with other parameters, unless the password was changed meanwhile."""
    same = (credentials.c.user == user, credentials.c.password == former)
    change.connection.execute(update(credentials).where(*same).values(password=encoded))


def set_totp(change: Change, user: str, seed: bytes, step: int, codes: Collection[str]) -> None:
    """Set the seed of a user's authenticator app, the step of the code that confirmed it, and new recovery codes."""
    sealed = change.vault.seal(_secret(user), seed)
    _update(change, user, totp=sealed, totp_step=step, recovery=sorted(map(_hashed, codes)))


def totp_seed(change: Change, user: str) -> bytes | None:
    """The seed of the user's authenticator app. Raises ConfigError if the vault has another key."""
    query = select(credentials.c.totp).where(credentials.c.user == user)
    sealed = change.connection.execute(query).scalar()
    return None if sealed is None else change.vault.open(_secret(user), sealed)


def use_step(change: Change, user: str, step: int) -> bool:
    """Record that the code of a step of time was used. Returns False if it, or a later one, was used before."""
    unused = (credentials.c.user == user, credentials.c.totp.is_not(None), credentials.c.totp_step < step)
    return change.connection.execute(update(credentials).where(*unused).values(totp_step=step)).rowcount == 1


def use_recovery_code(change: Change, user: str, code: str) -> bool:
    """Use up a recovery code. Returns False if the user has no such code."""
    query = select(credentials.c.recovery).where(credentials.c.user == user)
    codes: list[str] = change.connection.execute(query).scalar() or []
    hashed = _hashed(code)
    if hashed not in codes:
        return False
    _update(change, user, recovery=[each for each in codes if each != hashed])
    return True


def handle(change: Change, user: str) -> bytes:
    """What passkeys call the user. Raises ConfigError if there is no such user."""
    return _ensure(change, user).handle


def user_of(connection: Connection, handle: bytes) -> str | None:
    """The user whom passkeys call so."""
    name: str | None = connection.execute(select(credentials.c.user).where(credentials.c.handle == handle)).scalar()
    return name


def remove_totp(change: Change, user: str) -> None:
    """Forget a user's authenticator app and recovery codes."""
    _update(change, user, totp=None, recovery=[])


def remove(change: Change, user: str) -> None:
    """Forget everything that a user signs in with."""
    passkeys.remove_all(change, user)
    if before := find(change.connection, user):
        change.connection.execute(delete(credentials).where(credentials.c.user == user))
        change.record("credentials", user, before.json(), None)


def _ensure(change: Change, user: str) -> Credentials:
    if found := find(change.connection, user):
        return found
    lookup.check_exists(change.connection, "user", users.c.name, user)
    made = Credentials(user=user, handle=os.urandom(_HANDLE))
    row = {"user": user, "handle": made.handle, "password": "", "changed_at": 0.0, "totp_step": 0, "recovery": []}
    change.connection.execute(insert(credentials).values(row))
    return made


def _update(change: Change, user: str, **values: object) -> None:
    before = _ensure(change, user)
    change.connection.execute(update(credentials).where(credentials.c.user == user).values(values))
    after = find(change.connection, user)
    assert after is not None
    change.record("credentials", user, before.json(), after.json())


def _hashed(code: str) -> str:
    return sha256(code.encode()).hexdigest()


def _secret(user: str) -> str:
    return f"authenticator app of {user}"


SEALED: Final = (Sealed(credentials.c.totp, credentials.c.user, _secret),)
