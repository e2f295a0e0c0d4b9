"""What administrators do about what people prove who they are with, for the command line, the API and the console."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from wgpy.errors import ConfigError
from wgpy.gateway.identity import totp, trust
from wgpy.gateway.identity.certificates import Verifier, check_lists, read_lists
from wgpy.gateway.identity.passwords import Hasher, refusal
from wgpy.gateway.policy import ldap, oidc
from wgpy.gateway.policy.certificates import Authority
from wgpy.gateway.policy.directories import Directory
from wgpy.gateway.policy.people import Group, User
from wgpy.gateway.policy.problems import Problems, Unusable
from wgpy.gateway.store import certificates, credentials, endpoint, groups, links, logins, users
from wgpy.gateway.store.database import Change

_SETTINGS: Final[Mapping[str, Any]] = {"oidc": oidc.Settings, "ldap": ldap.Settings}
EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "oidc": oidc.Settings(issuer="https://id.example.org", client_id="vpn").json(),
    "ldap": ldap.Settings(servers=("ldaps://ldap.example.org",), base="dc=example,dc=org").json(),
}
"""Settings of each kind of directory with which nothing is wrong; but for the first two, the usual ones."""
_RECEIVERS: Final = {"oidc": ("issuer", "ca"), "ldap": ("servers", "plain", "ca")}
"""Settings that say who gets the secret of a directory, by its kind."""
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


def directory_settings(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a kind of directory as they are stored, given some of them, of whatever types.

    Raises ConfigError; if the kind is one that there is, that is an Unusable.
    """
    if kind not in _SETTINGS:
        raise ConfigError(f"kind {kind!a}: expected one of {', '.join(_SETTINGS)}")
    problems = Problems()
    settings: dict[str, Any] = {}
    with problems.of(kind):
        settings = _settings(kind, values)
    # What is missing or of another type hides what else is wrong, which is seen with good values in their place.
    good = {name: value for name, value in EXAMPLES[kind].items() if name in problems.why}
    with problems.of(kind):
        _settings(kind, {**values, **good})
    with problems.of("ca"):
        check_trusted(values.get("ca"))
    problems.check()
    return settings


def _settings(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    from pydantic import TypeAdapter, ValidationError

    problems = Problems()
    known = [each.name for each in fields(_SETTINGS[kind])]
    for name in values:
        if name not in known:
            problems.add(name, f"settings.{name}: there is none of that name; there are {', '.join(known)}")
    try:
        json: dict[str, Any] = TypeAdapter(_SETTINGS[kind]).validate_python(values).json()
    except ValidationError as error:
        for each in error.errors():
            with problems.of(str(next(iter(each["loc"]), ""))):
                if isinstance(cause := each.get("ctx", {}).get("error"), ConfigError):
                    raise cause from None
                raise ConfigError(f"settings.{'.'.join(map(str, each['loc']))}: {each['msg']}") from None
    problems.check()
    return json


def check_trusted(pem: object) -> None:
    """Check certificates that servers are checked against, if there are any. Raises ConfigError."""
    try:
        if isinstance(pem, str) and pem:
            trust.check(pem)
    except ConfigError as error:
        raise ConfigError(f"ca: {error}") from error


def check_kept(before: Directory, after: Directory) -> None:
    """Raises Unusable if `after`, with the secret that `before` has, would give that to somebody else.

    The secret is shown to nobody, so who changes where it is sent has to know it.
    """
    problems = Problems()
    for key in _RECEIVERS[before.kind]:
        if (before.settings.get(key) or None) != (after.settings.get(key) or None):
            problems.add("secret", f"{key}: it says who gets the secret; give the secret with it")
    problems.check()


def change_authority(change: Change, given: Mapping[str, Any]) -> Authority:
    """Change whose certificates are accepted: the fields that are given.

    Raises Unusable for what cannot be used, so that it is noticed now.
    """
    before = certificates.find_authority(change.connection)
    if before is None and "ca" not in given:
        raise Unusable({"ca": "certificate: ca is missing, the certificates of the authority"})
    authority = replace(before, **given) if before else Authority(**given)
    problems = Problems()
    with problems.of("ca"):
        check_trusted(authority.ca)
        Verifier(authority, None)
    problems.check()
    with problems.of("crl"):
        check_lists(authority, read_lists(authority))
    problems.check()
    certificates.set_authority(change, authority)
    return authority


def reset(change: Change, user: str) -> int:
    """Forget all that a user signs in with, and sign the user out. Returns of how many browsers. Raises ConfigError."""
    found = users.find(change.connection, user).name
    credentials.remove(change, found)
    links.forget(change, found)
    return logins.end_all(change, found)
