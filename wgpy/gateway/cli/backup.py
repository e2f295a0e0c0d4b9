"""`wgpy gateway backup` and `restore`."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import Any

from wgpy.gateway.cli import common


def add(objects: Any) -> None:
    text = "The gateway may run meanwhile. The key file is not in it: keep a copy of that elsewhere."
    made = common.command(objects, "backup", "copy the database to a new file", _backup, epilog=text)
    made.add_argument("file", metavar="FILE", type=Path, help="the copy, which must not exist")
    made = common.command(objects, "restore", "replace everything by what a backup has", _restore)
    made.add_argument("file", metavar="FILE", type=Path, help="what `wgpy gateway backup` has written")


def _backup(arguments: argparse.Namespace) -> int:
    with closing(common.database(arguments)) as database:
        database.backup(arguments.file)
    return common.done(arguments, f"{arguments.file} written", {"file": str(arguments.file)})


def _restore(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store.database import Database

    place, key = common.location(arguments)
    if key.exists() and not Database.exists(place):  # a new host, with the old one's key
        Database.create(place, key).close()
    with closing(common.database(arguments)) as database:
        database.restore(arguments.file, common.who())
        common.put_in_force(database)
    return common.done(arguments, f"{arguments.file} restored", {"file": str(arguments.file)})
