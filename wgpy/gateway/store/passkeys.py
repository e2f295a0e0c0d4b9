"""Users' passkeys in the database: their public keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from wgpy.errors import ConfigError
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import passkeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """A key pair of an authenticator, made for this gateway. Only the authenticator has its private key."""

    id: str
    """What the authenticator calls it, in base64url."""
    user: str
    name: str
    """What its owner calls it."""
    public_key: bytes
    """As COSE has it (RFC 9052)."""
    counter: int
    """How often the authenticator says that it was used; 0 if it does not count."""
    made_at: float
    used_at: float
    """When the last challenge that it answered was issued, in seconds since 1970: only a later one may be answered."""

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {"user": self.user, "name": self.name, "id": self.id, "made_at": self.made_at, "used_at": self.used_at}


def find_all(connection: Connection, user: str) -> list[Passkey]:
    """A user's passkeys, the oldest first."""
    query = select(passkeys).where(passkeys.c.user == user).order_by(passkeys.c.made_at, passkeys.c.id)
    return [Passkey(**row._mapping) for row in connection.execute(query)]


def find(connection: Connection, key: str) -> Passkey | None:
    """The passkey that its authenticator calls so."""
    row = connection.execute(select(passkeys).where(passkeys.c.id == key)).first()
    return Passkey(**row._mapping) if row else None


def add(change: Change, passkey: Passkey) -> None:
    """Add a passkey. Raises ConfigError if it is there already."""
    if find(change.connection, passkey.id):
        raise ConfigError(f"passkey {passkey.name}: this authenticator has been added already")
    row = {column.name: getattr(passkey, column.name) for column in passkeys.columns}
    change.connection.execute(insert(passkeys).values(row))
    change.record("passkey", passkey.id, None, passkey.json())


def use(change: Change, key: str, counter: int, issued_at: float) -> bool:
    """Record that a passkey answered the challenge issued at that time. Returns False if it answered a later one."""
    unused = (passkeys.c.id == key, passkeys.c.used_at < issued_at)
    values = {"counter": counter, "used_at": issued_at}
    return change.connection.execute(update(passkeys).where(*unused).values(values)).rowcount == 1


def remove(change: Change, user: str, key: str) -> None:
    """Remove a passkey of this user. Raises ConfigError if the user has none of that id."""
    found = find(change.connection, key)
    if found is None or found.user != user:
        raise ConfigError(f"passkey {key!a}: {user} has none of that id")
    change.connection.execute(delete(passkeys).where(passkeys.c.id == key))
    change.record("passkey", key, found.json(), None)


def remove_all(change: Change, user: str) -> None:
    """Remove all passkeys of a user."""
    for passkey in find_all(change.connection, user):
        remove(change, user, passkey.id)
