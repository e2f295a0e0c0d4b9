"""What administrators do about what people prove who they are with, for the command line and the API alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from wgpy.errors import ConfigError
from wgpy.gateway.identity import totp
from wgpy.gateway.identity.certificates import Verifier, read_lists
from wgpy.gateway.identity.passwords import Hasher, refusal
from wgpy.gateway.policy.certificates import Authority
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.store import certificates, credentials, endpoint, groups, links, logins, users
from wgpy.gateway.store.database import Change

LIFETIME: Final = 24 * 3600  # seconds: a link goes by mail, and is read on the next working day at the latest


class Invitation(NamedTuple):
    """A link with which a user chooses a password, once."""

    url: str
    expires: float
    """In seconds since 1970."""

    def json(self) -> dict[str, Any]:
        """What is shown of it, once."""
        return self._asdict()


class App(NamedTuple):
    """What sets up an authenticator app, and what helps if it is lost."""

    uri: str
    secret: str
    recovery_codes: list[str]

    def json(self) -> dict[str, Any]:
        """What is shown of it, once."""
        return self._asdict()


def encode(hasher: Hasher, user: str, password: str) -> str:
    """Hash a new password, which takes a moment. Raises ConfigError if it is too easy to guess."""
    if why := refusal(user, password):
        raise ConfigError(f"user {user}: {why[0].lower()}{why[1:]}")
    return hasher.hash(password)


def set_password(change: Change, user: str, encoded: str) -> None:
    """Set a local user's password, and sign the user out. Raises ConfigError."""
    credentials.check_local(change.connection, user)
    credentials.set_password(change, user, encoded)
    logins.end_all(change, user)


def invite(change: Change, user: str) -> Invitation:
    """Make a link for a local user, in the place of the one before. Raises ConfigError."""
    credentials.check_local(change.connection, user)
    url = endpoint.find(change.connection).url
    if not url:
        raise ConfigError(
            "endpoint: has no url, where people find the gateway's pages; `wgpy gateway endpoint set --url "
            "https://vpn.example.org` sets it"
        )
    secret = links.add(change, links.SET_UP, user, LIFETIME)
    return Invitation(f"{url}/set-up/{secret}", change.now + LIFETIME)


def has_administrator(connection: Connection) -> bool:
    """Whether there is somebody who may use the console."""
    return bool(users.page(connection, 1, group=endpoint.find(connection).admin_group, size=1).total)


def first_administrator(change: Change, name: str) -> Invitation:
    """Make the first user who may use the console, with the group of those. Raises ConfigError."""
    group = endpoint.find(change.connection).admin_group
    if group not in {each.name for each in groups.find_all(change.connection)}:
        groups.add(change, Group(name=group, description="may use the console"))
    users.add(change, User(name=name, groups=frozenset({group})))
    return invite(change, name)


def set_up_app(change: Change, user: str) -> App:
    """Give a user a new authenticator app and recovery codes. Raises ConfigError."""
    seed, codes = totp.new_seed(), totp.new_recovery_codes()
    credentials.set_totp(change, user, seed, 0, codes)
    return App(totp.uri(seed, user, endpoint.find(change.connection).host), totp.text(seed), codes)


def change_authority(change: Change, given: Mapping[str, Any]) -> Authority:
    """Change whose certificates are accepted: the fields that are given. Raises ConfigError for what cannot be used."""
    before = certificates.find_authority(change.connection)
    if before is None and "ca" not in given:
        raise ConfigError("certificate: ca is missing, the certificates of the authority")
    authority = replace(before, **given) if before else Authority(**given)
    Verifier(authority, read_lists(authority))  # so that a file that cannot be used is noticed now
    certificates.set_authority(change, authority)
    return authority


def reset(change: Change, user: str) -> int:
    """Forget all that a user signs in with, and sign the user out. Returns of how many browsers. Raises ConfigError."""
    found = users.find(change.connection, user).name
    credentials.remove(change, found)
    links.forget(change, found)
    return logins.end_all(change, found)
