"""Keeping keys out of error messages, which end up in terminals, logs and bug reports."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "(not shown)"
# Part of a key is a secret, too. Other text rarely has this many base64 characters in a row.
_PIECE: Final = re.compile(r"[A-Za-z0-9+/=]{20}")
_KEY: Final = re.compile(
    r"(?<![A-Za-z0-9+/])(?=[^a-z]{,43}[a-z])(?=[^A-Z]{,43}[A-Z])(?=[^0-9]{,43}[0-9])[A-Za-z0-9+/]{42,44}=?(?![A-Za-z0-9+/=])"
    r"|(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])"
)


def shown(value: str, whole: str = "") -> str:
    """Quote a wrong value for an error message, unless it, or the `whole` it is part of, may contain a key."""
    return HIDDEN if _PIECE.search("".join((whole or value).split())) else ascii(value)


def redacted(text: str) -> str:
    """Replace everything in a text that looks like a whole key, in base64 or hexadecimal."""
    return _KEY.sub(HIDDEN, text)
