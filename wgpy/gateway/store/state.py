"""Everything at one moment, for the service."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, select

from wgpy.gateway.policy.snapshot import Policy
from wgpy.gateway.store import devices, endpoint, routes, rules, users
from wgpy.gateway.store.database import Database
from wgpy.gateway.store.schema import audit

Mark = tuple[int, float]
"""The number and time of a change: no two changes have the same, even if a backup was restored between them."""

_OF_RULES: Final = {"rule", "route", "group"}  # kinds of objects whose changes leave endpoint, users and devices alone
_SIGN_IN: Final = "sign-in"  # of a device
_OF_PEOPLE: Final = {
    "login",
    "credentials",
    "passkey",
    "link",
    "directory",
    "token",
}  # the policy knows nothing of them


def read(database: Database, former: tuple[Policy, Mark] | None = None) -> tuple[Policy, Mark]:
    """The policy, and which change made it. What is as in the `former` one is taken from there."""
    with database.read() as connection:
        mark = _last(connection)
        kinds = _kinds_since(connection, former[1]) - _OF_PEOPLE if former else set()
        if former and not kinds:
            return former[0], mark
        if former and kinds <= {*_OF_RULES, _SIGN_IN}:
            policy = former[0]
            if kinds & _OF_RULES:
                policy = replace(policy, routes=routes.find_all(connection), rules=rules.find_all(connection))
            return policy.with_sign_ins(devices.signed_in(connection, _signed_in_since(connection, former[1]))), mark
        policy = Policy(
            endpoint=endpoint.find(connection),
            private_key=endpoint.private_key(connection, database.vault),
            users={user.name: user for user in users.find_all(connection)},
            devices={device.name: device for device in devices.find_all(connection)},
            preshared_keys=devices.preshared_keys(connection, database.vault),
            routes=routes.find_all(connection),
            rules=rules.find_all(connection),
        )
        return policy, mark


def last_change(database: Database) -> Mark:
    """The last change."""
    with database.read() as connection:
        return _last(connection)


def _last(connection: Connection) -> Mark:
    row = connection.execute(select(audit.c.id, audit.c.at).order_by(audit.c.id.desc()).limit(1)).first()
    return (row.id, row.at) if row else (0, 0.0)


def _kinds_since(connection: Connection, mark: Mark) -> set[str]:
    """The kinds of objects that have changed since; of a backup, if one was restored."""
    number, at = mark
    if connection.execute(select(audit.c.at).where(audit.c.id == number)).scalar() != at:
        return {"backup"}
    return {*connection.execute(select(audit.c.kind).where(audit.c.id > number).distinct()).scalars()}


def _signed_in_since(connection: Connection, mark: Mark) -> list[str]:
    """The devices whose sign-in has changed since."""
    query = select(audit.c.name).where(audit.c.id > mark[0], audit.c.kind == _SIGN_IN).distinct()
    return list(connection.execute(query).scalars())
