"""Finding and reading the configuration file that a command names: an interface in /etc/wireguard, or a path."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import Final, NamedTuple

from wgpy.config import services, wgquick
from wgpy.daemon.files import read
from wgpy.errors import ConfigError

CONFIG_DIRECTORY: Final = Path("/etc/wireguard")
CONFIG_HELP: Final = "an interface name, which means /etc/wireguard/NAME.conf, or a path to NAME.conf"
_INTERFACE_NAME: Final = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")


def locate(config: str) -> tuple[str, Path]:
    """The name and the file of an interface, given one of them, as for wg-quick. Raises ConfigError."""
    if _INTERFACE_NAME.fullmatch(config) and config.strip("."):
        return config.removesuffix(".conf"), (
            Path(config) if config.endswith(".conf") else CONFIG_DIRECTORY / f"{config}.conf"
        )
    if "\n" in config:
        raise ConfigError("expected an interface name or a path to NAME.conf, not the file's contents")
    path = Path(config)
    name = path.name.removesuffix(".conf")
    if path.suffix != ".conf" or not _INTERFACE_NAME.fullmatch(name):
        raise ConfigError(
            f"{config or 'CONFIG'}: expected an interface name of at most 15 characters, or a path to NAME.conf"
        )
    return name, path


def load(config: str) -> tuple[str, wgquick.WgQuickFile]:
    """Read a configuration file: the interface's name, and the file as `checked` returns it. Raises ConfigError."""
    name, path = locate(config)
    if not path.exists() and Path(path.name).exists():
        raise ConfigError(f"{path}: No such file or directory; there is one here: ./{path.name}")
    return name, checked(path, *read(path))


def checked(path: Path, text: str, status: os.stat_result) -> wgquick.WgQuickFile:
    """Parse a configuration file, and print warnings; `status` is that of the open file which the text was read from.

    Raises ConfigError, also for a file with hooks that other users may write, because hooks run as root.
    """
    if exposed := exposure(path, status):
        print(f"Warning: {exposed}", file=sys.stderr)
    try:
        file = wgquick.parse(text, str(path))
    except wgquick.ConfigFileError:
        if services.is_wireproxys(text):
            raise ConfigError(
                f"{path}: this is a file for wireproxy: `wgpy proxy {path}` serves it, without root"
            ) from None
        raise
    for problem in file.warnings:
        print(f"{problem} (warning)", file=sys.stderr)
    if untrusted := untrusted_hooks(path, file, status):
        raise ConfigError(f"{path}: {untrusted}")
    return file


def exposure(path: Path, status: os.stat_result) -> str:
    """A warning, as wg-quick has it, if every user may read or write a configuration file; else empty."""
    if (
        not stat.S_ISREG(status.st_mode)
        or not status.st_mode & 0o007
        or not path.resolve().parent.stat().st_mode & 0o007
    ):
        return ""
    return f"`{path}' is world accessible: chmod 600 {path}"


def untrusted_hooks(path: Path, file: wgquick.WgQuickFile, status: os.stat_result) -> str:
    """Why `up` does not run a file's hooks, which it runs as root, if other users may write the file; else empty."""
    hooks = file.config.pre_up + file.config.post_up + file.config.pre_down + file.config.post_down
    if not hooks or not (status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid())):
        return ""
    return f"has hooks, and users other than root may write it: chown root {path}; chmod 600 {path}"


class Source(NamedTuple):
    """A configuration file for a tunnel with proxies and forwards, split into wg-quick's part and wireproxy's."""

    path: Path
    """The file that has [Interface]: with WGConfig, another one than was named."""
    text: str
    """Its text without wireproxy's sections, for `wgquick.parse`."""
    status: os.stat_result
    services: services.Services
    exposed: tuple[str, ...]
    """A warning for each file read that is world accessible."""


def read_source(path: Path) -> Source:
    """Read a wg-quick file that may have wireproxy's sections. Raises ConfigError."""
    text, status = read(path)
    text, served = services.split(text, str(path))
    exposed = [exposure(path, status)]
    if served.config:
        path = path.parent / served.config
        text, status = read(path)
        exposed.append(exposure(path, status))
    return Source(path, text, status, served, tuple(filter(None, exposed)))
