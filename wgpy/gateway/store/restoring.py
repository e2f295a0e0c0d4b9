"""What a backup must not bring back: whatever was ended, used up or revoked after it was made.

Nobody can tell from a backup which of its sessions, links and tokens are still good, so all of them end. Passwords,
passkeys and authenticator apps stay as they were: without them nobody, the administrators included, could sign in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, update

from wgpy.gateway.policy.logins import CODE_PERIOD
from wgpy.gateway.store.schema import credentials, devices, endpoint, links, logins, passkeys, sessions, tokens, users

Ways = set[tuple[str, object]]
"""By what people come in: what each is called, and a value that tells it from another of the same name."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore has revoked, and what it has brought back."""

    tokens: list[str]
    """The names of the API's tokens that the backup had. They are revoked."""
    back: list[str]
    """What was removed, disabled or replaced since the backup, and is good again, such as "user bob"."""

    def json(self) -> dict[str, Any]:
        """What is shown of it."""
        return {"revoked_tokens": self.tokens, "back": self.back}


def ways_in(connection: Connection) -> Ways | None:
    """By what people can come in now; None if there is no gateway yet."""
    if connection.execute(select(endpoint.c.interface)).first() is None:
        return None
    allowed = users.c.enabled & ~users.c.suspended & ~users.c.expired
    found: Ways = {(f"user {row.name}", None) for row in connection.execute(select(users.c.name).where(allowed))}
    query = select(devices.c.name, devices.c.public_key).where(devices.c.enabled)
    found |= {(f"device {row.name}", row.public_key) for row in connection.execute(query)}
    for row in connection.execute(select(credentials.c.user, credentials.c.password, credentials.c.totp)):
        found |= {(f"password of {row.user}", row.password)} if row.password else set()
        found |= {(f"authenticator app of {row.user}", row.totp)} if row.totp else set()
    query = select(passkeys.c.user, passkeys.c.name, passkeys.c.id)
    return found | {(f"passkey {row.name} of {row.user}", row.id) for row in connection.execute(query)}


def revoke(connection: Connection, before: Ways | None, now: float) -> Restored:
    """End what a backup that has just been read must not bring back; `before` is what was there.

    Codes of authenticator apps are taken from the next period on, because the last ones may have been used.
    """
    present = sessions.c.ended_at.is_(None)
    connection.execute(update(sessions).where(present).values(ended_at=now, reason="restored"))
    connection.execute(update(devices).values(signed_in_at=None))
    connection.execute(update(credentials).values(recovery=[]))
    step = int(now) // CODE_PERIOD + 1
    connection.execute(update(credentials).where(credentials.c.totp_step < step).values(totp_step=step))
    revoked = list(connection.execute(select(tokens.c.name).order_by(tokens.c.name)).scalars())
    for table in (logins, links, tokens):
        connection.execute(delete(table))
    after = ways_in(connection) or set()
    return Restored(revoked, sorted(what for what, _ in after - (after if before is None else before)))
