"""Everything at one moment, for the service."""

from __future__ import annotations

from sqlalchemy import Connection, select

from wgpy.gateway.policy.snapshot import Policy
from wgpy.gateway.store import devices, endpoint, routes, rules, users
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.schema import audit

Mark = tuple[int, float]
"""The number and time of a change: no two changes have the same, even if a backup was restored between them."""


def read(database: Database) -> tuple[Policy, Mark]:
    """The policy, and which change made it."""
    with database.read() as connection:
        policy = Policy(
            endpoint=endpoint.find(connection),
            private_key=endpoint.private_key(connection, database.vault),
            users={user.name: user for user in users.find_all(connection)},
            devices={device.name: device for device in devices.find_all(connection)},
            preshared_keys=devices.preshared_keys(connection, database.vault),
            routes=routes.find_all(connection),
            rules=rules.find_all(connection),
        )
        return policy, _last(connection)


def last_change(database: Database) -> Mark:
    """The last change."""
    with database.read() as connection:
        return _last(connection)


def _last(connection: Connection) -> Mark:
    row = connection.execute(select(audit.c.id, audit.c.at).order_by(audit.c.id.desc()).limit(1)).first()
    return (row.id, row.at) if row else (0, 0.0)
