"""Reading a configuration file, and putting a new text in its place without ever losing both."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from wgpy.errors import ConfigError

_LONGEST: Final = 256 << 20  # bytes; 2^20 peers, the most there may be, take less


def read_text(path: Path) -> str:
    """The file's text, undecodable bytes included, a byte order mark not. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(data) > _LONGEST:
        raise ConfigError(f"{path}: expected a configuration, not more than {_LONGEST >> 20} MiB")
    return data.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")


def replace_text(path: Path, text: str) -> None:
    """Write all of the text or nothing: a new file, synced, takes the place of the old, with its owner and its mode.

    A symbolic link stays one; a file that is new is its owner's alone. Raises ConfigError, and the file is as it was.
    """
    path = path.resolve()
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(new, "xb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as file:
            if path.exists():
                status = path.stat()
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
                os.fchmod(file.fileno(), status.st_mode & 0o7777)
            file.write(text.encode("utf-8", errors="surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise ConfigError(f"{path}: not written, it is as it was: {error.strerror}") from error
