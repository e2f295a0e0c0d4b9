"""The whole command line: every module of commands adds its own."""

from __future__ import annotations

import argparse

from wgpy import __version__
from wgpy.cli import check, interface, keys, show


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="wgpy",
        description="WireGuard in pure Python: bring up an interface from a wg-quick file, look at it, take it down.",
        epilog="Each command has its own help: wgpy up -h",
    )
    top.add_argument("--version", action="version", version=f"wgpy {__version__}")
    verbs = top.add_subparsers(metavar="COMMAND", required=True)
    for commands in (interface, show, check, keys):
        commands.add(verbs)
    return top
