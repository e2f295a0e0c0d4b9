"""Enrol a device by a client certificate, and let its session begin again: its owner signs the device's key."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sqlalchemy import Connection

from wgpy.errors import ConfigError
from wgpy.gateway.identity.certificates import Accepted, NotAccepted, Verifier, check_proof, read_lists
from wgpy.gateway.policy.certificates import Authority, Proof
from wgpy.gateway.store import certificates, devices, endpoint, enrolment, users
from wgpy.gateway.store.certificates import Bound
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.enrolment import Enrolled


@dataclass(frozen=True, slots=True)
class _State:
    """What a verifier was made of: the authority, and which file, of which size and time."""

    authority: Authority
    file: tuple[int, int, int] | None


class Verifiers:
    """Makes a verifier, and makes another when the authority or its file of revoked certificates has changed."""

    def __init__(self) -> None:
        self._made: tuple[_State, Verifier] | None = None
        self._failed: _State | None = None

    def verifier(self, authority: Authority | None) -> Verifier:
        """The verifier for now. Raises NotAccepted if certificates cannot be judged: then none is accepted.

        A file that cannot be read, as while somebody is writing it, is looked at twice before that is believed.
        """
        if authority is None:
            raise NotAccepted("this gateway accepts no certificates; `wgpy gateway certificate set` changes that")
        state, made = _State(authority, _file(authority)), self._made
        if made is None or made[0] != state:
            try:
                made = self._made = (state, Verifier(authority, read_lists(authority)))
            except NotAccepted:
                if made is None or made[0].authority != authority or self._failed == state:
                    raise
                self._failed = state
        return made[1]


def prove(
    connection: Connection, verifiers: Verifiers, chain: str, proof: Proof, signature: bytes, wall: float
) -> Accepted:
    """Verify a certificate, and that `signature` is by its key, over a proof for this gateway and this moment.

    `wall` is in seconds since 1970. Raises ConfigError.
    """
    url = endpoint.find(connection).url
    if not url:
        raise ConfigError("the gateway has no url yet: `wgpy gateway endpoint set --url https://...`")
    if proof.url != url:
        raise NotAccepted(f"the proof is for {proof.url[:100]!a}, and this gateway is {url}")
    proof.check_fresh(wall)
    accepted = verifiers.verifier(certificates.find_authority(connection)).accept(chain, wall)
    check_proof(accepted.leaf, proof, signature)
    return accepted


def enrol(change: Change, chain: str, proof: Proof, accepted: Accepted) -> Enrolled:
    """Take in the device of a proof: a new one, or one of the same person, which is then signed in again.

    Raises ConfigError.
    """
    user = _user(change, accepted.name)
    if (name := devices.name_of(change.connection, proof.public_key)) is None:
        most = endpoint.find(change.connection).devices_max
        if len(devices.of_user(change.connection, user)) >= most:
            raise NotAccepted(f"user {user} has the {most} devices that a person may add: remove one first")
        device = enrolment.enrol(change, proof.device, user, proof.public_key).device
    else:
        device = devices.find(change.connection, name)
        if device.user != user or name != proof.device:
            raise NotAccepted("another device has this key: make another key")
        if not device.enabled:
            raise NotAccepted(f"device {name} is disabled")
    before = certificates.find(change.connection, device.name)
    if before and proof.at <= before.proved_at:
        raise NotAccepted("this proof, or a later one, was used already: make another")
    bound = Bound(
        device=device.name,
        subject=accepted.subject,
        serial=f"{accepted.leaf.serial_number:X}",
        expires=accepted.leaf.not_valid_after_utc.timestamp(),
        chain=chain,
        proved_at=proof.at,
    )
    certificates.bind(change, bound)
    devices.sign_in(change, device.name)
    device = devices.find(change.connection, device.name)
    return Enrolled(device, enrolment.file_of(change, device))


def _user(change: Change, name: str) -> str:
    """The user whom a certificate names. Raises NotAccepted if there is none who may come in."""
    try:
        user = users.find(change.connection, name)
    except ConfigError:
        raise NotAccepted(f"the certificate is of {name[:100]!a}, and there is no user of that name") from None
    if not user.is_allowed or user.is_expired(change.now):
        raise NotAccepted(f"user {name} is disabled, or has expired")
    return name


def _file(authority: Authority) -> tuple[int, int, int] | None:
    try:
        found = os.stat(authority.crl if authority.has_file else "/dev/null")
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
