"""All secrets of a database sealed with another key."""

from __future__ import annotations

from typing import Final

from sqlalchemy import select, update

from wgpy.errors import ControlError
from wgpy.gateway.store import credentials, devices, directories, endpoint, nodes
from wgpy.gateway.store.database import Change, Database
from wgpy.gateway.store.vault import Vault

SEALED: Final = (*endpoint.SEALED, *devices.SEALED, *directories.SEALED, *credentials.SEALED)


def check_stopped(database: Database) -> None:
    """Raises ControlError if a gateway of this database runs: it would go on with the key that it has in memory."""
    with database.read() as connection:
        names = {database.node, *(node.name for node in nodes.find_all(connection) if database.is_shared)}
    for name in sorted(names):
        if database.is_running(name):
            what = f"the gateway {name}" if name else "the gateway"
            raise ControlError(f"{what} runs; stop it first: `systemctl stop wgpy-gateway`")


def reseal(change: Change, vault: Vault) -> int:
    """Seal every secret with the key of another vault; returns how many. Raises ConfigError if one does not open."""
    count = 0
    for column, owner, what in SEALED:
        rows = change.connection.execute(select(owner, column).where(column.is_not(None))).all()
        for name, sealed in rows:
            fresh = vault.seal(what(name), change.vault.open(what(name), sealed))
            change.connection.execute(update(column.table).where(owner == name).values({column.key: fresh}))
        count += len(rows)
    change.record("key", "gateway", None, {"resealed": count})
    return count
