"""The whole command line: every module of commands adds its own."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

from wgpy import __version__

# In the order of `wgpy -h`. Of a command that is named only its module is loaded: all take longer than most commands.
MODULES: Final = {
    "interface": ("up", "run", "down", "apply", "save", "strip", "serve"),
    "show": ("show",),
    "wg": ("showconf", "set", "setconf", "addconf", "syncconf"),
    "check": ("check",),
    "client": ("client",),
    "rootless": ("exec", "proxy", "forward", "stdio"),
    "doctor": ("doctor",),
    "keys": ("genkey", "genpsk", "pubkey"),
    "lab": ("lab",),
}


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    return _build(MODULES)[0]


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments. `[-f] INTERFACE`, wireguard-go's command line, is `serve` without the word."""
    needed = [module for module, names in MODULES.items() if argv and argv[0] in names]
    top, verbs = _build(needed or MODULES)
    words = [word for word in argv if word not in ("-f", "--foreground")]
    if len(words) == 1 and not words[0].startswith("-") and words[0] not in verbs.choices:
        from difflib import get_close_matches

        if close := get_close_matches(words[0], verbs.choices):
            top.error(f"no command {words[0]!r}: {close[0]} is one. An interface of that name: wgpy serve {words[0]}")
        argv = ["serve", *argv]
    return top.parse_args(argv or ["--help"])


def _build(modules: Iterable[str]) -> tuple[argparse.ArgumentParser, Any]:
    top = argparse.ArgumentParser(
        prog="wgpy",
        description="WireGuard in pure Python: bring up an interface from a wg-quick file, look at it, take it down.",
        epilog="Each command has its own help: wgpy up -h. As wireguard-go: wgpy [-f] INTERFACE is wgpy serve.",
    )
    top.add_argument("--version", action="version", version=f"wgpy {__version__}")
    verbs = top.add_subparsers(metavar="COMMAND", required=True)
    for module in modules:
        import_module(f"wgpy.cli.{module}").add(verbs)
    return top, verbs
