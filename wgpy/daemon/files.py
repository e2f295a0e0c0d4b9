"""Reading a configuration file, and putting a new text in its place without ever losing both."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from wgpy.errors import ConfigError

_LONGEST: Final = 256 << 20  # bytes; 2^20 peers, the most there may be, take less


def read_text(path: Path) -> str:
    """The file's text, undecodable bytes included, a byte order mark not. Raises ConfigError."""
    if "\n" in str(path):  # whose private key an error would repeat
        raise ConfigError("expected a configuration file's path, not what is in it")
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        remedy = ": run as root, or as its owner" if isinstance(error, PermissionError) else ""
        raise ConfigError(f"{path}: {error.strerror}{remedy}") from error
    if len(data) > _LONGEST:
        raise ConfigError(f"{path}: expected a configuration, not more than {_LONGEST >> 20} MiB")
    return data.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Keep others who read a file, change it and write it waiting for their turn. Raises ConfigError."""
    try:
        directory = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # of the directory, for the file itself is replaced
        yield
    finally:
        os.close(directory)


def replace_text(path: Path, text: str) -> None:
    """Write all of the text or nothing: a new file, synced, takes the place of the old, with its owner and its mode.

    A symbolic link stays one; a file that is new is its owner's alone. Raises ConfigError, and the file is as it was.
    """
    path = path.resolve()
    try:
        with _beside(path, text.encode("utf-8", errors="surrogateescape")) as new:
            if path.exists():
                status = path.stat()
                os.chown(new, status.st_uid, status.st_gid)
                os.chmod(new, status.st_mode & 0o7777)
            new.replace(path)
            _sync(path.parent)
    except OSError as error:
        raise ConfigError(f"{path}: not written, it is as it was: {error.strerror}") from error


def write_new(path: Path, content: bytes) -> None:
    """A whole new file that its owner alone may read, or none. Raises OSError, FileExistsError if it is there."""
    with _beside(path, content) as new:
        os.link(new, path)
        _sync(path.parent)


@contextmanager
def _beside(path: Path, content: bytes) -> Iterator[Path]:
    """A synced file with this content in the same directory, its owner's alone; in the end its name goes."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(new, "xb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield new
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """Have a name outlive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
