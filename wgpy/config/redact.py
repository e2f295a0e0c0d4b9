"""Keys in a wrong place, which an error is not to repeat: it ends up in terminals, logs and bug reports."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "(not shown)"
# A piece of a key is a secret, too. What else may stand in a file rarely has so many characters of base64 in a row.
_PIECE: Final = re.compile(r"[A-Za-z0-9+/=]{20}")
_KEY: Final = re.compile(
    r"(?<![A-Za-z0-9+/])(?=[^a-z]{,43}[a-z])(?=[^A-Z]{,43}[A-Z])(?=[^0-9]{,43}[0-9])[A-Za-z0-9+/]{42,44}=?(?![A-Za-z0-9+/=])"
    r"|(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])"
)


def shown(value: str, whole: str = "") -> str:
    """A wrong value for an error to repeat, quoted; not if it, or the `whole` it is a part of, may have a key in it."""
    return HIDDEN if _PIECE.search("".join((whole or value).split())) else ascii(value)


def redacted(text: str) -> str:
    """A text that may hold paths and names, without what looks like a whole key, in base64 or hexadecimal."""
    return _KEY.sub(HIDDEN, text)
