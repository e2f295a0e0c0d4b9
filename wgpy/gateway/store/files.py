"""Files of the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wgpy.daemon.files import new_file
from wgpy.errors import ConfigError


@contextmanager
def new(path: Path, content: bytes = b"") -> Iterator[None]:
    """Make a file with mode 0600; it is removed again if the block raises. Raises ConfigError."""
    with ExitStack() as made:
        try:
            made.enter_context(new_file(path, content))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        yield


def make_directory(path: Path) -> None:
    """Make a directory with mode 0700, and those above it, if it is missing. Raises ConfigError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
