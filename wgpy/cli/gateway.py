"""`wgpy gateway`, whose commands are in `wgpy.gateway.cli`; and its demo, which is a lab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wgpy.cli import lab


def add(verbs: Any, words: Sequence[str] = ()) -> None:
    """Add the command to the command line, as far as it is needed for the words that follow it."""
    from wgpy.gateway import cli

    objects = cli.add(verbs, words)
    text = "build a gateway, three people and two servers in namespaces on this machine, and show what happens"
    demo = objects.add_parser("demo", help=text, description=f"{text[0].upper()}{text[1:]}. Needs root.")
    lab.options(demo)
    demo.set_defaults(name="gateway")
