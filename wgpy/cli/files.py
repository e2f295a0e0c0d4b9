"""Configuration files as commands name them: an interface in /etc/wireguard, or a path."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

from wgpy.config import services, wgquick
from wgpy.daemon.files import read, read_text
from wgpy.errors import ConfigError

CONFIG_DIRECTORY: Final = Path("/etc/wireguard")
CONFIG_HELP: Final = "an interface name, for /etc/wireguard/NAME.conf, or a path to NAME.conf"
_INTERFACE_NAME: Final = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")


def locate(config: str) -> tuple[str, Path]:
    """An interface's name and its file, from either, as wg-quick takes them. Raises ConfigError."""
    if _INTERFACE_NAME.fullmatch(config) and config.strip("."):
        return config.removesuffix(".conf"), (
            Path(config) if config.endswith(".conf") else CONFIG_DIRECTORY / f"{config}.conf"
        )
    if "\n" in config:
        raise ConfigError("expected an interface name or a path to NAME.conf, not what is in it")
    path = Path(config)
    name = path.name.removesuffix(".conf")
    if path.suffix != ".conf" or not _INTERFACE_NAME.fullmatch(name):
        raise ConfigError(
            f"{config or 'CONFIG'}: expected an interface name or a path to NAME.conf, NAME of at most 15 characters"
        )
    return name, path


def load(config: str) -> tuple[str, wgquick.WgQuickFile]:
    """The name and the content of the file, as `checked`. Raises ConfigError."""
    name, path = locate(config)
    if not path.exists() and Path(path.name).exists():
        raise ConfigError(f"{path}: No such file or directory; the one here is ./{path.name}")
    return name, checked(path, *read(path))


def checked(path: Path, text: str, status: os.stat_result) -> wgquick.WgQuickFile:
    """What a file says, warned about if others may read it; `status` is that of the file that the text was read from.

    A file with hooks, whose commands run as root, is refused if others may write it. Raises ConfigError.
    """
    if status.st_mode & 0o007 and path.resolve().parent.stat().st_mode & 0o007:
        print(f"Warning: `{path}' is world accessible: chmod 600 {path}", file=sys.stderr)
    try:
        file = wgquick.parse(text, str(path))
    except wgquick.ConfigFileError:
        if services.is_wireproxys(text):
            raise ConfigError(
                f"{path}: is one of wireproxy's files: `wgpy proxy {path}` serves it, without root"
            ) from None
        raise
    for problem in file.warnings:
        print(f"{problem} (warning)", file=sys.stderr)
    hooks = file.config.pre_up + file.config.post_up + file.config.pre_down + file.config.post_down
    if hooks and (status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid())):
        raise ConfigError(f"{path}: has hooks, and others than root may write it: chown root {path}; chmod 600 {path}")
    return file


def read_served(path: Path) -> tuple[Path, str, services.Services]:
    """What to read as a wg-quick file, and what wireproxy's sections want served. Raises ConfigError."""
    text, served = services.split(read_text(path), str(path))
    if served.config:
        path = path.parent / served.config
        text = read_text(path)
    return path, text, served
