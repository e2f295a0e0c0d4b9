"""What the client connect handler is asked and may answer: AWS Client VPN's JSON, schema v2.

https://docs.aws.amazon.com/vpn/latest/clientvpn-admin/connection-authorization.html. A WireGuard client tells nothing
of its platform, so those values are empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

TIMEOUT: Final = 30.0  # seconds, which AWS does not let one change either
LONGEST_TEXT: Final = 255  # characters
MOST_STATUSES: Final = 10
_VERSION: Final = "v2"


class Answer(NamedTuple):
    """Whether a session may begin, what to tell if not, and the posture compliance statuses."""

    allow: bool
    message: str
    posture: tuple[str, ...]


def question(
    connection_id: str, *, interface: str, device: str, user: str, groups: Iterable[str], public_ip: str
) -> str:
    """The JSON text that the handler gets."""
    return json.dumps(
        {
            "connection-id": connection_id,
            "endpoint-id": interface,
            "common-name": device,
            "username": user,
            "platform": "",
            "platform-version": "",
            "public-ip": public_ip,
            "client-openvpn-version": "",
            "groups": sorted(groups),
            "schema-version": _VERSION,
        }
    )


def read_answer(text: bytes) -> Answer:
    """Read the handler's answer, without control characters. Raises ValueError with what is wrong with it."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("expected one JSON object") from None
    if not isinstance(found, dict):
        raise ValueError("expected one JSON object")
    allow, message = found.get("allow"), found.get("error-msg-on-denied-connection")
    posture = found.get("posture-compliance-statuses")
    if not isinstance(allow, bool):
        raise ValueError("allow: expected true or false")
    if not isinstance(message, str) or len(message) > LONGEST_TEXT:
        raise ValueError(f"error-msg-on-denied-connection: expected a text of at most {LONGEST_TEXT} characters")
    if not isinstance(posture, list) or len(posture) > MOST_STATUSES or not all(map(_is_status, posture)):
        raise ValueError(
            f"posture-compliance-statuses: expected at most {MOST_STATUSES} texts of at most {LONGEST_TEXT} characters"
        )
    if found.get("schema-version") != _VERSION:
        raise ValueError(f"schema-version: expected {_VERSION!r}")
    return Answer(allow, _shown(message), tuple(map(_shown, posture)))


def _shown(text: str) -> str:
    """What can be shown of a text, and stored: PostgreSQL finds nothing in a connection log with a NUL."""
    return "".join(filter(str.isprintable, text))


def _is_status(status: object) -> bool:
    return isinstance(status, str) and len(status) <= LONGEST_TEXT
