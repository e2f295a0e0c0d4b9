"""`wgpy gateway`, whose commands are in `wgpy.gateway.cli`; and its demo, which is a lab."""

from __future__ import annotations

from typing import Any

from wgpy.cli import lab


def add(verbs: Any) -> None:
    """Add the command to the command line."""
    from wgpy.gateway import cli

    objects = cli.add(verbs)
    text = "build a gateway, three people and two servers in namespaces on this machine, and show what happens"
    demo = objects.add_parser("demo", help=text, description=f"{text[0].upper()}{text[1:]}. Needs root.")
    lab.options(demo)
    demo.set_defaults(name="gateway")
