"""Whether an object is still as somebody saw it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any


def revision(values: Mapping[str, Any]) -> str:
    """A short text that differs as soon as one of an object's values does, in hexadecimal."""
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
