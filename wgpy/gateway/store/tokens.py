"""Tokens of the API in the database. Of a token's text, only the hash is here."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from wgpy.gateway.policy.tokens import PREFIX, Token
from wgpy.gateway.store import lookup
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import tokens

_SIZE: Final = 32  # bytes of chance


def find_all(connection: Connection) -> list[Token]:
    """All tokens, by name."""
    return [_value(row) for row in connection.execute(select(tokens).order_by(tokens.c.name))]


def find(connection: Connection, name: str) -> Token:
    """The token of that name. Raises Missing if there is none."""
    row = connection.execute(select(tokens).where(tokens.c.name == name)).first()
    if row is None:
        raise lookup.missing("token", name, lookup.names(connection, tokens.c.name))
    return _value(row)


def add(change: Change, token: Token) -> str:
    """Add a token. Returns its text, which cannot be found again. Raises Conflict if the name is taken."""
    lookup.check_new(change.connection, "token", tokens.c.name, token.name)
    text = PREFIX + secrets.token_urlsafe(_SIZE)
    change.connection.execute(insert(tokens).values(**token.json(), digest=digest(text)))
    change.record("token", token.name, None, token.json())
    return text


def remove(change: Change, name: str) -> None:
    """Remove a token: it is of no use from now on. Raises Missing if there is none of that name."""
    before = find(change.connection, name)
    change.connection.execute(delete(tokens).where(tokens.c.name == name))
    change.record("token", name, before.json(), None)


def find_by_text(connection: Connection, text: str, wall: float) -> Token | None:
    """The token with that text, unless it has expired by now, which is `wall`."""
    wanted = digest(text)
    row = connection.execute(select(tokens).where(tokens.c.digest == wanted)).first()
    if row is None or not hmac.compare_digest(row.digest, wanted):
        return None
    found = _value(row)
    return None if found.is_expired(wall) else found


def seen(change: Change, token: Token) -> None:
    """Record that the token is being used. That is no change of what it is, so the audit log has no entry."""
    change.connection.execute(update(tokens).where(tokens.c.name == token.name).values(used_at=change.now))


def digest(text: str) -> bytes:
    """What is kept of a token: it is too long to be guessed, so a plain SHA-256 gives nothing away."""
    return sha256(text.encode(errors="replace")).digest()


def _value(row: Any) -> Token:
    fields = dict(row._mapping)
    del fields["digest"]
    return Token(**{**fields, "scopes": frozenset(row.scopes)})
