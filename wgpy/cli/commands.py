"""Every verb of `wgpy`: its arguments, its help, and the call it makes."""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import sys
import time
from pathlib import Path
from typing import Final

from wgpy import __version__
from wgpy.config import wgquick
from wgpy.errors import ConfigError, ControlError, KeyFormatError
from wgpy.keys import PresharedKey, PrivateKey

CONFIG_DIRECTORY: Final = Path("/etc/wireguard")
_INTERFACE_NAME: Final = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")

_CONFIG_HELP: Final = "an interface name, for /etc/wireguard/NAME.conf, or a path to NAME.conf"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="wgpy",
        description="WireGuard in pure Python: bring up an interface from a wg-quick file, look at it, take it down.",
        epilog="Each command has its own help: wgpy up -h",
    )
    top.add_argument("--version", action="version", version=f"wgpy {__version__}")
    verbs = top.add_subparsers(metavar="COMMAND", required=True)

    up = verbs.add_parser(
        "up",
        help="bring up an interface and leave a daemon serving it",
        description="Create the interface, start its daemon in the background, and set addresses, MTU, routes, rules, "
        "DNS and hooks as wg-quick does. Returns when all is done; if a step fails, what was done is undone.",
        epilog="Example: wgpy up ./wg0.conf; wgpy show wg0; wgpy down wg0. Needs root or CAP_NET_ADMIN.",
    )
    up.set_defaults(call=_up)
    run = verbs.add_parser(
        "run",
        help="the same in the foreground, until SIGTERM or Ctrl-C",
        description="As `wgpy up`, but stay in the foreground and log to stderr. SIGTERM or Ctrl-C takes it down.",
    )
    run.set_defaults(call=_run)
    for verb in (up, run):
        verb.add_argument("config", metavar="CONFIG", help=_CONFIG_HELP)
        verb.add_argument(
            "--no-offload",
            action="store_true",
            help="move packets one at a time, without segmentation or merging (for kernels where that is broken)",
        )
    run.add_argument("-v", "--verbose", action="store_true", help="log handshakes, roaming and fallbacks")

    down = verbs.add_parser(
        "down",
        help="take an interface down and undo all that `up` did",
        description="End the daemon of an interface; it runs PreDown, removes its routes, rules and DNS, deletes the "
        "interface and runs PostDown. Returns when that is done.",
    )
    down.add_argument("config", metavar="CONFIG", help=_CONFIG_HELP)
    down.set_defaults(call=_down)

    show = verbs.add_parser(
        "show",
        help="interfaces and peers, as `wg show`",
        description="Show every interface that answers in /var/run/wireguard, or one. Private and preshared keys are "
        "never shown.",
    )
    show.add_argument("interface", metavar="INTERFACE", nargs="?", help="only this one")
    show.add_argument("--json", action="store_true", help="as JSON: bytes, seconds since 1970, drops by reason")
    show.set_defaults(call=_show)

    check = verbs.add_parser(
        "check",
        help="every problem of a configuration file, without touching anything",
        description="Read a wg-quick file and say every problem with its line. Exit status 1 if there is any error; "
        "warnings alone are 0.",
    )
    check.add_argument("file", metavar="FILE", help="the file to check")
    check.add_argument("--json", action="store_true", help="as JSON: a list of problems")
    check.set_defaults(call=_check)

    for name, call, text in (
        ("genkey", _genkey, "a new private key, in base64"),
        ("genpsk", _genpsk, "a new preshared key, in base64"),
        ("pubkey", _pubkey, "the public key of the private key on standard input"),
    ):
        verb = verbs.add_parser(name, help=text, description=f"Print {text}.")
        verb.set_defaults(call=call)
    return top


def _up(arguments: argparse.Namespace) -> int:
    from wgpy.daemon.process import start_in_background

    name, file = _load(arguments.config)
    return start_in_background(name, file.config, offload=not arguments.no_offload)


def _run(arguments: argparse.Namespace) -> int:
    import logging

    from wgpy.daemon.process import run

    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
    )
    name, file = _load(arguments.config)
    return run(name, file.config, offload=not arguments.no_offload)


def _down(arguments: argparse.Namespace) -> int:
    from wgpy.daemon.process import stop

    stop(_locate(arguments.config)[0])
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from wgpy.cli import show

    names = [arguments.interface] if arguments.interface else show.interfaces()
    statuses = {}
    failed = False
    for name in names:
        try:
            statuses[name] = show.read(name)
        except ControlError as error:
            print(f"Unable to access interface {name}: {error}", file=sys.stderr)
            failed = True
    if arguments.json:
        print(json.dumps({name: show.as_json(status) for name, status in statuses.items()}, indent=2))
    else:
        colour = {"always": True, "never": False}.get(os.environ.get("WG_COLOR_MODE", ""), sys.stdout.isatty())
        now = int(time.time())
        print("\n".join(show.as_text(name, status, now, colour) for name, status in statuses.items()), end="")
    return 1 if failed and not statuses else 0


def _check(arguments: argparse.Namespace) -> int:
    path = Path(arguments.file)
    try:
        warnings = wgquick.parse(_read(path), str(path)).warnings
        errors: tuple[wgquick.Problem, ...] = ()
    except wgquick.ConfigFileError as error:
        warnings, errors = (), error.problems
    if arguments.json:
        found = [("error", p) for p in errors] + [("warning", p) for p in warnings]
        print(
            json.dumps(
                [
                    {"severity": severity, "file": p.filename, "line": p.line, "key": p.key, "message": p.message}
                    for severity, p in found
                ],
                indent=2,
            )
        )
    else:
        for problem in errors:
            print(problem)
        for problem in warnings:
            print(f"{problem} (warning)")
        if not errors:
            print(f"{path}: ok")
    return 1 if errors else 0


def _genkey(_: argparse.Namespace) -> int:
    return _print_secret(PrivateKey.generate().base64())


def _genpsk(_: argparse.Namespace) -> int:
    return _print_secret(PresharedKey.generate().base64())


def _pubkey(_: argparse.Namespace) -> int:
    try:
        key = PrivateKey.from_base64(sys.stdin.read(1024).rstrip())
    except (KeyFormatError, UnicodeDecodeError):
        raise KeyFormatError("standard input is not a private key: 44 base64 characters, as genkey prints") from None
    print(key.public_key.base64())
    return 0


def _print_secret(text: str) -> int:
    mode = os.fstat(sys.stdout.fileno()).st_mode
    if stat.S_ISREG(mode) and mode & 0o007:
        print(
            "Warning: writing to world accessible file.\nConsider setting the umask to 077 and trying again.",
            file=sys.stderr,
        )
    print(text)
    return 0


def _locate(config: str) -> tuple[str, Path]:
    """An interface's name and its file, from either, as wg-quick takes them. Raises ConfigError."""
    if _INTERFACE_NAME.fullmatch(config):
        return config.removesuffix(".conf"), (
            Path(config) if config.endswith(".conf") else CONFIG_DIRECTORY / f"{config}.conf"
        )
    path = Path(config)
    name = path.name.removesuffix(".conf")
    if path.suffix != ".conf" or not _INTERFACE_NAME.fullmatch(name):
        raise ConfigError(f"{config}: expected an interface name or a path to NAME.conf, NAME of at most 15 characters")
    return name, path


def _load(config: str) -> tuple[str, wgquick.WgQuickFile]:
    name, path = _locate(config)
    text = _read(path)
    if path.stat().st_mode & 0o007 and path.resolve().parent.stat().st_mode & 0o007:
        print(f"Warning: `{path}' is world accessible: chmod 600 {path}", file=sys.stderr)
    return name, wgquick.parse(text, str(path))


def _read(path: Path) -> str:
    """The file's text, to the byte (undecodable ones included). Raises ConfigError."""
    try:
        return path.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
