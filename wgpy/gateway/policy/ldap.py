"""The settings of an LDAP directory: how it is reached, and where people and groups are in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from wgpy.errors import ConfigError
from wgpy.gateway.policy.problems import Problems, Unusable

PORTS: Final = {"ldaps": 636, "ldap": 389}


class Membership(StrEnum):
    """How the groups of a person are found."""

    MEMBER = "member"
    """Groups name their members: groupOfNames, groupOfUniqueNames, posixGroup. Groups in groups are followed."""
    MEMBEROF = "memberof"
    """Entries name their groups in `memberOf`."""
    CHAIN = "chain"
    """Active Directory finds groups in groups itself, by LDAP_MATCHING_RULE_IN_CHAIN."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a directory listens."""

    host: str
    port: int
    is_tls: bool
    """Whether TLS begins at once (ldaps), or is asked for by StartTLS (RFC 4511, section 4.14)."""

    @classmethod
    def parse(cls, url: str) -> Server:
        """Read ldaps://HOST[:PORT] or ldap://HOST[:PORT]. Raises ConfigError."""
        problem = ConfigError(f"server {url!a}: expected ldaps://HOST or ldap://HOST, with :PORT if it is another")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise problem from None
        if parts.scheme not in PORTS or not parts.hostname or parts.username is not None:
            raise problem
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise problem
        return cls(parts.hostname, port or PORTS[parts.scheme], parts.scheme == "ldaps")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ldaps' if self.is_tls else 'ldap'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a directory. Raises Unusable for values that cannot be used."""

    servers: tuple[str, ...]
    """URLs, tried in this order: ldaps://, or ldap:// with StartTLS."""
    base: str
    """The DN below which people are."""
    group_base: str = ""
    """The DN below which groups are; `base` if empty."""
    bind_dn: str = ""
    """Who searches; empty for anybody, which most directories do not allow."""
    plain: bool = False
    """Whether ldap:// stays without TLS. Then passwords are readable on the way."""
    ca: str = ""
    """Certificates in PEM that the servers' are checked against; empty for those that the system trusts."""
    user_filter: str = "(objectClass=person)"
    """What an entry has to match to be a person who may sign in."""
    group_filter: str = "(objectClass=*)"
    """What an entry has to match to be a group."""
    login: str = "uid"
    """The attribute that people type to sign in, and that becomes their name."""
    subject: str = "entryUUID"
    """The attribute that names an entry for ever."""
    group_name: str = "cn"
    """The attribute that names a group."""
    membership: Membership = Membership.MEMBER
    timeout: float = 10.0
    """Seconds for all of a sign-in, at most."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "servers", tuple(self.servers))  # JSON has lists
        problems = Problems()
        with problems.of("membership"):
            object.__setattr__(self, "membership", _membership(self.membership))
        with problems.of("servers"):
            self._check_servers()
        if not self.base:  # then an empty DN, which binds anybody, would be within it
            problems.add("base", "base: none given; name where people are, such as ou=people,dc=example,dc=org")
        if not 0 < self.timeout <= 60:
            problems.add("timeout", f"timeout {self.timeout}: expected a number of seconds up to 60")
        for name, text in (("user_filter", self.user_filter), ("group_filter", self.group_filter)):
            with problems.of(name):
                _check_filter(name.replace("_", " "), text)
        for name, text in (("login", self.login), ("subject", self.subject), ("group_name", self.group_name)):
            if not text.replace("-", "").isalnum() or not text.isascii():
                problems.add(name, f"{name.replace('_', ' ')} {text!a}: expected the name of an attribute, such as uid")
        problems.check()

    def _check_servers(self) -> None:
        if not self.servers:
            raise ConfigError("server: none given; name one, such as ldaps://ldap.example.org")
        servers = [Server.parse(url) for url in self.servers]
        if self.plain and any(server.is_tls for server in servers):
            why = "plain: an ldaps:// server is never without TLS; write ldap://, or leave this out"
            raise Unusable({"plain": why})

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {**asdict(self), "servers": list(self.servers), "membership": self.membership.value}


ACTIVE_DIRECTORY: Final[Mapping[str, Any]] = {
    "user_filter": "(&(objectCategory=person)(objectClass=user))",
    "group_filter": "(objectClass=group)",
    "login": "sAMAccountName",
    "subject": "objectGUID",
    "membership": Membership.CHAIN.value,
}
"""Settings for Active Directory, where they differ from those above."""


def _membership(text: str) -> Membership:
    try:
        return Membership(text)
    except ValueError:
        raise ConfigError(f"membership {text!a}: expected one of {', '.join(Membership)}") from None


def _check_filter(what: str, text: str) -> None:
    from sansldap import LDAPFilter

    try:
        LDAPFilter.from_string(text)
    except ValueError as error:
        raise ConfigError(f"{what} {text!a}: {error}; expected one such as (objectClass=person)") from None
