"""Configuration files: read, edited as a person would, and written back with every comment.

::

    from dataclasses import replace
    from wgpy import config

    file = config.read("wg0.conf")
    print(file.config.peers, file.warnings)
    config.write("wg0.conf", config.rewritten(file, replace(file.config, listen_port=51820)))

A file is text and the values that it says. It is changed by values: the lines that say something else then are changed,
all others stay to the byte. `str(file)` is its text, and `parse` reads one that is in no file.
"""

from __future__ import annotations

import os
from pathlib import Path

from wgpy.config.edit import rewritten
from wgpy.config.values import EndpointName, InterfaceConfig, PeerConfig
from wgpy.config.wgquick import ConfigFileError, Problem, WgQuickFile, parse
from wgpy.daemon.files import read_text, replace_text

__all__ = [
    "ConfigFileError", "EndpointName", "InterfaceConfig", "PeerConfig", "Problem", "WgQuickFile", "parse", "read",
    "rewritten", "write",
]  # fmt: skip


def read(path: str | os.PathLike[str]) -> WgQuickFile:
    """Read a wg-quick file. Raises ConfigFileError with every problem in it, ConfigError if it cannot be read."""
    return parse(read_text(Path(path)), str(path))


def write(path: str | os.PathLike[str], file: WgQuickFile) -> None:
    """Put the file's text there, all of it or nothing, with the owner and mode of what was there; a new one is private.

    Raises ConfigError.
    """
    replace_text(Path(path), str(file))
