"""The endpoint's settings in the database, and its private key."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from wgpy.errors import ConfigError
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import endpoint as table
from wgpy.gateway.store.schema import leases
from wgpy.gateway.store.vault import Sealed, Vault
from wgpy.keys import PrivateKey


def find(connection: Connection) -> Endpoint:
    """The endpoint. Raises ConfigError if there is none yet."""
    return _value(_row(connection))


def exists(connection: Connection) -> bool:
    """Whether there is an endpoint."""
    return connection.execute(select(table.c.interface)).first() is not None


def private_key(connection: Connection, vault: Vault) -> PrivateKey:
    """The endpoint's private key. Raises ConfigError if the vault has another key."""
    row = _row(connection)
    return PrivateKey(vault.open(_secret(row.interface), row.private_key))


def add(change: Change, endpoint: Endpoint, key: PrivateKey) -> None:
    """Add the endpoint. Raises ConfigError if there is one."""
    if exists(change.connection):
        raise ConfigError("endpoint: there is one already; `wgpy gateway endpoint set` changes it")
    sealed = change.vault.seal(_secret(endpoint.interface), bytes(key))
    change.connection.execute(insert(table).values(**endpoint.json(), private_key=sealed))
    change.record("endpoint", endpoint.interface, None, endpoint.json())


def replace(change: Change, endpoint: Endpoint) -> None:
    """Change the endpoint's settings. Raises ConfigError if a device would be outside the pools, or a route within."""
    from wgpy.gateway.policy.routes import check
    from wgpy.gateway.store import routes

    row = _row(change.connection)
    before = _value(row)
    check(endpoint, routes.find_all(change.connection))
    for address in change.connection.execute(select(leases.c.address).where(leases.c.released_at.is_(None))).scalars():
        if not any(ip_address(address) in pool for pool in endpoint.pools):
            raise ConfigError(
                f"pool: a device has {address}, which would be in no pool; remove the device, or keep its pool"
            )
    values = endpoint.json()
    if endpoint.interface != before.interface:  # which is what the sealed key is called
        key = change.vault.open(_secret(before.interface), row.private_key)
        values["private_key"] = change.vault.seal(_secret(endpoint.interface), key)
    change.connection.execute(update(table).values(values))
    change.record("endpoint", endpoint.interface, before.json(), endpoint.json())


def take_over(change: Change, key: PrivateKey) -> None:
    """Give the endpoint another gateway's private key, so that the clients of that one know it."""
    interface = find(change.connection).interface
    before = private_key(change.connection, change.vault).public_key.base64()
    sealed = change.vault.seal(_secret(interface), bytes(key))
    change.connection.execute(update(table).values(private_key=sealed))
    change.record("endpoint", interface, {"public_key": before}, {"public_key": key.public_key.base64()})


def _row(connection: Connection) -> Any:
    row = connection.execute(select(table)).first()
    if row is None:
        raise ConfigError("endpoint: there is none yet; `wgpy gateway init` makes one")
    return row


def _value(row: Any) -> Endpoint:
    fields = dict(row._mapping)
    del fields["private_key"]
    fields["pools"] = tuple(map(ip_network, row.pools))
    fields["dns"] = tuple(map(ip_address, row.dns))
    fields["search"] = tuple(row.search)
    return Endpoint(**fields)


def _secret(interface: str) -> str:
    return f"private key of {interface}"


SEALED: Final = (Sealed(table.c.private_key, table.c.interface, _secret),)
