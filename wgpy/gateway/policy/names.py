"""Names of the gateway's objects: users, groups, devices, rules."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from wgpy.errors import ConfigError

LONGEST: Final = 255  # characters, AWS's limit for the name of a group
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+=-]*")
_ODD: Final = re.compile(r"[^A-Za-z0-9._@+=-]+")


def checked(kind: str, name: str) -> str:
    """Return a name that is safe in a shell, a URL, a file name and a log. Raises ConfigError for any other.

    `kind` is what it names, for the message.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{kind} {name!a}: expected a name of ASCII letters, digits and ._@+=- that begins with a letter or digit"
        )
    if len(name) > LONGEST:
        raise ConfigError(f"{kind} {name[:20]}...: a name has at most {LONGEST} characters, and this one {len(name)}")
    return name


def plain(text: str) -> str:
    """Make a name of a text: letters lose their accents, and all else that names cannot have becomes `-`.

    It is empty if nothing is left, and different texts may become the same name.
    """
    bare = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    return _ODD.sub("-", bare).lstrip("._@+=-").rstrip("-")[:LONGEST]
