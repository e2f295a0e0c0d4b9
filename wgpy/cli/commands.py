"""The whole command line: every module of commands adds its own."""

from __future__ import annotations

import argparse
from typing import Any

from wgpy import __version__
from wgpy.cli import check, client, doctor, interface, keys, lab, rootless, show, wg


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    return _build()[0]


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments. `[-f] INTERFACE`, wireguard-go's command line, is `serve` without the word."""
    top, verbs = _build()
    words = [word for word in argv if word not in ("-f", "--foreground")]
    if len(words) == 1 and not words[0].startswith("-") and words[0] not in verbs.choices:
        from difflib import get_close_matches

        if close := get_close_matches(words[0], verbs.choices):
            top.error(f"no command {words[0]!r}: {close[0]} is one. An interface of that name: wgpy serve {words[0]}")
        argv = ["serve", *argv]
    return top.parse_args(argv)


def _build() -> tuple[argparse.ArgumentParser, Any]:
    top = argparse.ArgumentParser(
        prog="wgpy",
        description="WireGuard in pure Python: bring up an interface from a wg-quick file, look at it, take it down.",
        epilog="Each command has its own help: wgpy up -h. As wireguard-go: wgpy [-f] INTERFACE is wgpy serve.",
    )
    top.add_argument("--version", action="version", version=f"wgpy {__version__}")
    verbs = top.add_subparsers(metavar="COMMAND", required=True)
    for commands in (interface, show, wg, check, client, rootless, doctor, keys, lab):
        commands.add(verbs)
    return top, verbs
