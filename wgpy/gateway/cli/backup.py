"""`wgpy gateway backup`, `restore` and `rekey`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from wgpy.gateway.cli import common

_RESTORED: Final = (
    "All sessions, sign-ins, links, recovery codes and tokens of the API end, because a backup does not know which of "
    "them were revoked since. What else was removed, disabled or changed since is as it was, and named."
)
_SHOWN: Final = 20


def add(objects: Any) -> None:
    text = "The gateway may run meanwhile. The key file is not in it: keep a copy of that elsewhere."
    made = common.command(objects, "backup", "copy the database to a new file", _backup, epilog=text)
    made.add_argument("file", metavar="FILE", type=Path, help="the copy, which must not exist")
    made = common.command(objects, "restore", "replace everything by what a backup has", _restore, epilog=_RESTORED)
    made.add_argument("file", metavar="FILE", type=Path, help="what `wgpy gateway backup` has written")
    made = common.command(
        objects,
        "rekey",
        "seal all secrets with a new key",
        _rekey,
        epilog="Stop all gateways of the database first. Afterwards, put the new file in the place of the old key, on "
        "every host. Backups that were made before need the old key.",
    )
    made.add_argument("file", metavar="FILE", type=Path, help="where the new key goes; the file must not exist")


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
        restored = database.restore(arguments.file, common.who())
        common.put_in_force(database)
    lines = [
        f"{arguments.file} restored",
        "all sessions and sign-ins have ended; links and recovery codes made before are of no use any more",
    ]
    if restored.tokens:
        lines.append(f"revoked tokens of the API: {_some(restored.tokens)}; `wgpy gateway token add` makes new ones")
    if restored.back:
        lines.append(f"as they were in the backup again: {_some(restored.back)}; remove or reset what should not be")
    return common.done(arguments, "\n".join(lines), {"file": str(arguments.file), **restored.json()})


def _rekey(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import rekey
    from wgpy.gateway.store.vault import Vault

    with closing(common.database(arguments)) as database:
        rekey.check_stopped(database)
        with (
            database.running(),  # so that none begins to
            Vault.created(arguments.file) as vault,
            database.change(common.who()) as change,
        ):
            count = rekey.reseal(change, vault)
    text = f"{count} secrets are sealed with the key in {arguments.file}; now move that to {arguments.key}"
    return common.done(arguments, text, {"secrets": count, "file": str(arguments.file)})


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more (--json has all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
