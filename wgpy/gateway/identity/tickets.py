"""Tickets: what a browser keeps for the gateway between two steps, sealed, so that it can neither read nor change it.

The gateway itself keeps nothing for people who have proved nothing yet, so strangers fill no memory; and any gateway
with the same key can take the next step.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, NamedTuple

from wgpy.errors import ConfigError
from wgpy.gateway.store.vault import Vault


class Ticket(NamedTuple):
    """What was sealed, and when, in seconds since 1970."""

    values: dict[str, Any]
    issued_at: float


def issue(vault: Vault, purpose: str, wall: float, **values: Any) -> str:
    """Seal values for a later step, which is the `purpose`. The text is good for a cookie or a form."""
    return urlsafe_b64encode(vault.seal(_what(purpose), json.dumps([wall, values]).encode())).decode()


def read(vault: Vault, purpose: str, text: str, wall: float, lifetime: float) -> Ticket | None:
    """What a ticket has; None if it is not one of ours for this purpose, or older than `lifetime` seconds."""
    try:
        issued_at, values = json.loads(vault.open(_what(purpose), urlsafe_b64decode(text)))
    except (ConfigError, ValueError):
        return None
    return Ticket(values, issued_at) if 0 <= wall - issued_at < lifetime else None


def _what(purpose: str) -> str:
    return f"ticket of a browser to {purpose}"
