"""Sign-ins in a browser: how long each lasts. Times are in seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

IDLE_MAX: Final = 30 * 60
"""Seconds without a request until a person has to sign in again (OWASP's session management, 15 to 30 minutes)."""
LIFETIME: Final = 12 * 3600
"""Seconds until a person has to sign in again in any case."""
FRESH: Final = 15 * 60
"""Seconds after a sign-in during which a person may change how they sign in."""
CODE_PERIOD: Final = 30
"""Seconds for which an authenticator app shows a code."""
SEEN_EVERY: Final = 60
"""Seconds between two records of the last request, so that not every request writes to the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A person who is signed in with one browser."""

    id: str
    """The SHA-256 of the cookie, in hexadecimal: who reads it here cannot sign in with it."""
    user: str
    made_at: float
    seen_at: float
    strength: str
    """What the person proved, such as "password, totp" or "passkey"."""
    address: str
    """The address from which the person signed in."""

    def is_over(self, wall: float) -> bool:
        """Whether the person has to sign in again by now, which is `wall`.

        A clock that was set back ends it as well: nobody knows how old it is then.
        """
        idle = wall - self.seen_at
        return not (-SEEN_EVERY <= idle < IDLE_MAX and wall - self.made_at < LIFETIME)

    def is_fresh(self, wall: float) -> bool:
        """Whether the sign-in is recent enough to change how the person signs in."""
        return wall - self.made_at < FRESH

    def is_seen_late(self, wall: float) -> bool:
        """Whether the last request is to be recorded again."""
        return wall - self.seen_at >= SEEN_EVERY

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {"user": self.user, "made_at": self.made_at, "strength": self.strength, "address": self.address}
