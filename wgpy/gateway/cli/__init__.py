"""`wgpy gateway`: a module for each kind of object, which adds its commands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from wgpy.gateway.cli import common

OBJECTS: Final = (
    "init", "endpoint", "user", "group", "directory", "certificate", "device", "route", "rule", "test", "session",
    "token", "log", "status",
    "backup", "migrate",
    "transfer",
    "run", "enrol",
)  # fmt: skip


def add(verbs: Any, words: Sequence[str] = ()) -> Any:
    """Add the command to the command line; returns what further commands of it can be added to.

    If the first of the words that follow it is a kind of object, those of other kinds are left out: to load and make
    all takes as long as to do what many of them do.
    """
    gateway = verbs.add_parser(
        "gateway",
        help="run a gateway: who may reach which private network, and for how long",
        description="Manage and run a gateway: users with their devices, groups, and rules that say which group may "
        "reach what. Clients are stock WireGuard apps. Needs pip install 'wgpy[gateway]'.",
        epilog="Each command has its own help, such as wgpy gateway user -h. Start with wgpy gateway init -h.",
    )
    common.place_options(
        gateway,
        Path(os.environ.get("WGPY_GATEWAY", common.DIRECTORY)),
        Path(os.environ.get("WGPY_GATEWAY_KEY", common.KEY)),
    )
    objects = gateway.add_subparsers(metavar="COMMAND", required=True)
    for name in words[:1] if words and words[0] in OBJECTS else OBJECTS:
        import_module(f"wgpy.gateway.cli.{name}").add(objects)
    return objects
