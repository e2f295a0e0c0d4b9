"""Devices in the database, with their addresses and preshared keys. Their private keys are never here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace as changed
from ipaddress import ip_address
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, or_, select, update

from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.names import checked
from wgpy.gateway.policy.people import Device
from wgpy.gateway.policy.pools import Released, assign
from wgpy.gateway.store import endpoint, lookup, paging
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import certificates, devices, leases, users
from wgpy.gateway.store.vault import Sealed, Vault
from wgpy.keys import PresharedKey, PublicKey

_HELD: Final = select(leases.c.public_key, leases.c.address).where(leases.c.released_at.is_(None))


def find_all(connection: Connection) -> list[Device]:
    """All devices, by name."""
    return _devices(connection.execute(select(devices).order_by(devices.c.name)).all(), connection.execute(_HELD))


def page(
    connection: Connection, number: int, text: str = "", user: str = "", *, size: int = paging.SIZE
) -> paging.Page[Device]:
    """A page of the devices with `text` in their name, user or address, and of `user`, if one is given; by name."""
    holders = _HELD.with_only_columns(leases.c.public_key).where(paging.contains(text, leases.c.address))
    matching = or_(paging.contains(text, devices.c.name, devices.c.user), devices.c.public_key.in_(holders))
    query = select(devices).where(matching).order_by(devices.c.name)
    if user:
        query = query.where(devices.c.user == user)
    found = paging.find(connection, query, number, size)
    return changed(found, rows=_found(connection, found.rows))


def find(connection: Connection, name: str) -> Device:
    """The device of that name. Raises ConfigError if there is none."""
    row = connection.execute(select(devices).where(devices.c.name == name)).first()
    if row is None:
        raise lookup.missing("device", name, lookup.names(connection, devices.c.name))
    (found,) = _found(connection, [row])
    return found


def at(connection: Connection, address: Address) -> Device | None:
    """The device that has this address; None if none has."""
    holder = select(leases.c.public_key).where(leases.c.address == str(address), leases.c.released_at.is_(None))
    query = select(devices.c.name).where(devices.c.public_key.in_(holder))
    name = connection.execute(query).scalar()
    return None if name is None else find(connection, name)


def of_user(connection: Connection, user: str) -> list[Device]:
    """A user's devices, by name."""
    return _found(
        connection, connection.execute(select(devices).where(devices.c.user == user).order_by(devices.c.name))
    )


def name_of(connection: Connection, public_key: PublicKey) -> str | None:
    """The name of the device with this key; None if there is none."""
    query = select(devices.c.name).where(devices.c.public_key == public_key.base64())
    found: str | None = connection.execute(query).scalar()
    return found


def preshared_key(connection: Connection, vault: Vault, name: str) -> PresharedKey:
    """A device's preshared key. Raises ConfigError if the vault has another key."""
    sealed = connection.execute(select(devices.c.preshared_key).where(devices.c.name == name)).scalar_one()
    return PresharedKey(vault.open(_secret(name), sealed))


def preshared_keys(connection: Connection, vault: Vault) -> dict[PublicKey, PresharedKey]:
    """The preshared key of every device, by its public key. Raises ConfigError if the vault has another key."""
    return {
        PublicKey.from_base64(key): PresharedKey(vault.open(_secret(name), sealed))
        for name, key, sealed in connection.execute(
            select(devices.c.name, devices.c.public_key, devices.c.preshared_key)
        )
    }


def add(
    change: Change,
    name: str,
    user: str,
    public_key: PublicKey,
    preshared_key: PresharedKey,
    static: Sequence[Address] = (),
) -> Device:
    """Add a device with an address from the pools of each IP version, or with those of `static`.

    Raises ConfigError: the name or key is taken, there is no such user, an address cannot be had, a pool is full.
    """
    checked("device", name)
    lookup.check_new(change.connection, "device", devices.c.name, name)
    lookup.check_exists(change.connection, "user", users.c.name, user)
    if owner := name_of(change.connection, public_key):
        raise lookup.Conflict(f"device {name}: device {owner} has this public key; make another key")
    row = {
        "name": name,
        "user": user,
        "public_key": public_key.base64(),
        "preshared_key": change.vault.seal(_secret(name), bytes(preshared_key)),
        "enabled": True,
        "signed_in_at": None,
        "certificate": None,
    }
    change.connection.execute(insert(devices).values(row))
    _lease(change, public_key, static)
    device = find(change.connection, name)
    change.record("device", name, None, device.json())
    return device


def enable(change: Change, name: str, *, enabled: bool) -> None:
    """Enable or disable a device. Raises ConfigError if there is none of that name."""
    _update(change, name, enabled=enabled)


def sign_in(change: Change, name: str, at: float | None = None) -> None:
    """Record that the device's user has proved who they are, now or `at` that time: a session may begin.

    Raises ConfigError if there is no device of that name.
    """
    _update(change, name, signed_in_at=change.now if at is None else at)


def judge_certificate(change: Change, name: str, refusal: str | None) -> None:
    """Record why the device's certificate is not accepted; empty if it is, and None if it has none any more."""
    _update(change, name, certificate=refusal)


def sign_out(change: Change, user: str) -> None:
    """Have a user sign in again before each device's next session."""
    query = select(devices.c.name).where(devices.c.user == user, devices.c.signed_in_at.is_not(None))
    for name in list(change.connection.execute(query.order_by(devices.c.name)).scalars()):
        _update(change, name, signed_in_at=None)


def remove(change: Change, name: str) -> None:
    """Remove a device. Its addresses are remembered for its key. Raises ConfigError if there is none of that name."""
    before = find(change.connection, name)
    key = before.public_key.base64()
    released = update(leases).where(leases.c.public_key == key).values(released_at=change.now)
    change.connection.execute(released)
    change.connection.execute(delete(certificates).where(certificates.c.device == name))
    change.connection.execute(delete(devices).where(devices.c.name == name))
    change.record("device", name, before.json(), None)


def _devices(rows: Iterable[Any], held: Iterable[Any]) -> list[Device]:
    addresses: dict[str, list[Address]] = {}
    for lease in held:
        addresses.setdefault(lease.public_key, []).append(ip_address(lease.address))
    return [
        Device(
            name=row.name,
            user=row.user,
            public_key=PublicKey.from_base64(row.public_key),
            addresses=_sorted(addresses.get(row.public_key, ())),
            enabled=row.enabled,
            signed_in_at=row.signed_in_at,
            certificate=row.certificate,
        )
        for row in rows
    ]


def _lease(change: Change, public_key: PublicKey, static: Sequence[Address]) -> None:
    """Give the key an address from the pools of each IP version."""
    rows = change.connection.execute(select(leases)).all()
    held = {ip_address(row.address) for row in rows if row.released_at is None}
    released = [
        Released(address=ip_address(row.address), public_key=PublicKey.from_base64(row.public_key), at=row.released_at)
        for row in rows
        if row.released_at is not None
    ]
    pools = endpoint.find(change.connection).pools
    for version in sorted({pool.version for pool in pools} | {address.version for address in static}):
        same = [pool for pool in pools if pool.version == version]
        choices: list[Address | None] = [address for address in static if address.version == version]
        for choice in choices or [None]:
            address = assign(
                same,
                {each for each in held if each.version == version},
                [each for each in released if each.address.version == version],
                public_key,
                choice,
            )
            change.connection.execute(delete(leases).where(leases.c.address == str(address)))
            row = {"address": str(address), "public_key": public_key.base64(), "released_at": None}
            change.connection.execute(insert(leases).values(row))
            held.add(address)


def signed_in(connection: Connection, names: Iterable[str]) -> dict[str, float | None]:
    """When the user of each of these devices last proved who they are."""
    query = select(devices.c.name, devices.c.signed_in_at).where(devices.c.name.in_(names))
    return {row.name: row.signed_in_at for row in connection.execute(query)}


def _found(connection: Connection, rows: Iterable[Any]) -> list[Device]:
    """The devices of some rows."""
    every = list(rows)
    held = _HELD.where(leases.c.public_key.in_([row.public_key for row in every]))
    return _devices(every, connection.execute(held))


def _update(change: Change, name: str, **values: Any) -> None:
    before = find(change.connection, name)
    change.connection.execute(update(devices).where(devices.c.name == name).values(values))
    kind = "sign-in" if {*values} == {"signed_in_at"} else "device"
    change.record(kind, name, before.json(), changed(before, **values).json())


def _secret(name: str) -> str:
    return f"preshared key of {name}"


def _sorted(addresses: Iterable[Address]) -> tuple[Address, ...]:
    return tuple(sorted(addresses, key=lambda address: (address.version, int(address))))


SEALED: Final = (Sealed(devices.c.preshared_key, devices.c.name, _secret),)
