"""A new device, with the file that its WireGuard app reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wgpy.gateway.policy.client_file import client_file
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.people import Device
from wgpy.gateway.store import devices, endpoint, routes
from wgpy.gateway.store.database import Change
from wgpy.keys import PresharedKey, PrivateKey, PublicKey


class Enrolled(NamedTuple):
    """A device that was just added. Its file has secrets that are stored nowhere else, or not readably."""

    device: Device
    file: str


def enrol(
    change: Change, name: str, user: str, public_key: PublicKey | None = None, static: Sequence[Address] = ()
) -> Enrolled:
    """Add a device of a user, with an address from the pools of each IP version, or with those of `static`.

    Without a public key, a key is made, and its private half is in the file only. Raises ConfigError.
    """
    key = None
    if public_key is None:
        key = PrivateKey.generate()
        public_key = key.public_key
    device = devices.add(change, name, user, public_key, PresharedKey.generate(), static)
    return Enrolled(device, file_of(change, device, key))


def file_of(change: Change, device: Device, key: PrivateKey | None = None) -> str:
    """A device's file as it would be made now; without its private key, its owner adds that."""
    own = endpoint.private_key(change.connection, change.vault).public_key
    psk = devices.preshared_key(change.connection, change.vault, device.name)
    settings, every = endpoint.find(change.connection), routes.find_all(change.connection)
    return client_file(settings, own, device, psk, every, key)
