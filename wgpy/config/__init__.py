"""Read, edit and write wg-quick files, keeping their comments and layout.

::

    from dataclasses import replace
    from wgpy import config

    file = config.read("wg0.conf")
    print(file.config.peers, file.warnings)
    config.write("wg0.conf", config.rewritten(file, replace(file.config, listen_port=51820)))

A `WgQuickFile` has the file's text and the configuration it describes. `rewritten` changes the configuration: only the
lines that differ are edited, and all others stay the same to the byte. `str(file)` is the text; `parse` reads a string.
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
    """Read a wg-quick file. Raises ConfigFileError with every problem in it, or ConfigError if it cannot be read."""
    return parse(read_text(Path(path)), str(path))


def write(path: str | os.PathLike[str], file: WgQuickFile) -> None:
    """Write the file's text atomically. An existing file keeps its owner and mode; a new one has mode 0600.

    Raises ConfigError if it cannot be written.
    """
    replace_text(Path(path), str(file))
