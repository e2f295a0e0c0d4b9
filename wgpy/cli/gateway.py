"""`wgpy gateway`, whose commands are in `wgpy.gateway.cli`."""

from __future__ import annotations

from typing import Any


def add(verbs: Any) -> None:
    """Add the command to the command line."""
    from wgpy.gateway import cli

    cli.add(verbs)
