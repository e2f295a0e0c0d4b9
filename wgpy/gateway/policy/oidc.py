"""The settings of a provider of OpenID Connect, and what its claims say about a person.

Source: OpenID Connect Core 1.0, section 5.1 (claims) and 5.3.2 (UserInfo).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

from wgpy.errors import ConfigError
from wgpy.gateway.policy.names import plain
from wgpy.gateway.policy.people import LONGEST_SUBJECT, Person
from wgpy.gateway.policy.problems import Problems

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
SCOPES: Final = ("openid", "profile", "email")
SCOPES_IF_OFFERED: Final = ("groups", "offline_access")
"""`offline_access` is how most providers are asked for a refresh token, which the periodic check needs."""
MOST_GROUPS: Final = 1000  # of one person; Entra ID sends at most 200 in a token
_OURS: Final = frozenset(
    ("client_id", "code_challenge", "code_challenge_method", "nonce", "redirect_uri", "response_mode", "response_type",
     "scope", "state")
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to reach the provider, and what to ask it. Raises Unusable for values that cannot be used."""

    issuer: str
    """Its address; `/.well-known/openid-configuration` below it says all else."""
    client_id: str
    """What it calls this gateway."""
    scopes: tuple[str, ...] = ()
    """What to ask for; empty for the usual ones."""
    groups_claim: str = "groups"
    name_claim: str = "preferred_username"
    require: Mapping[str, str] = field(default_factory=dict)
    """Claims that a person must have with these values, such as Google's `hd`."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Further parameters of the request for authentication, such as Google's `access_type`."""
    ca: str = ""
    """Certificates in PEM that the provider's is checked against; empty for those that the system trusts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scopes", tuple(self.scopes))  # JSON has lists
        problems = Problems()
        with problems.of("issuer"):
            _check_issuer(self.issuer)
        if not self.client_id:
            problems.add(
                "client_id", "client id: none given; the provider gives one when the gateway is registered there"
            )
        if self.scopes and "openid" not in self.scopes:
            problems.add("scopes", "scope: openid is missing, and without it the provider does not say who somebody is")
        for name, usual in (("groups_claim", "groups"), ("name_claim", "preferred_username")):
            if not getattr(self, name):
                problems.add(name, f"{name.replace('_', ' ')}: none given; the usual one is {usual}")
        if ours := sorted(_OURS & {*self.parameters}):
            problems.add("parameters", f"parameter {ours[0]}: the gateway sets this itself")
        problems.check()

    def json(self) -> dict[str, Any]:
        """What is shown and recorded of it."""
        return {
            "issuer": self.issuer,
            "client_id": self.client_id,
            "scopes": list(self.scopes),
            "groups_claim": self.groups_claim,
            "name_claim": self.name_claim,
            "require": dict(self.require),
            "parameters": dict(self.parameters),
            "ca": self.ca,
        }

    def scopes_of(self, offered: list[str]) -> tuple[str, ...]:
        """The scopes to ask a provider for that says that it offers these."""
        return self.scopes or (*SCOPES, *(scope for scope in SCOPES_IF_OFFERED if scope in offered))

    def person(self, source: str, claims: Mapping[str, Any]) -> Person:
        """Who the claims are about. Raises ConfigError if they do not say so, or lack what the settings require."""
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= LONGEST_SUBJECT:
            raise ConfigError("the provider does not say who somebody is: the claim sub is missing or too long")
        if not subject.isprintable():  # it is ASCII: Core, section 2
            raise ConfigError("the provider does not say who somebody is: the claim sub has control characters")
        for claim, value in self.require.items():
            if claims.get(claim) != value:
                raise ConfigError(f"only people whose claim {claim} is {value} may sign in here")
        email = _text(claims, "email") if claims.get("email_verified", True) in (True, "true") else ""
        name = plain(_text(claims, self.name_claim)) or plain(email) or plain(subject)
        if not name:
            raise ConfigError(f"the provider gives no name in the claim {self.name_claim}")
        elsewhere = claims.get("_claim_names")  # Core, section 5.6.2; Entra ID does so with more than 200 groups
        if isinstance(elsewhere, dict) and self.groups_claim in elsewhere:
            raise ConfigError(
                "the provider leaves out the groups of people who are in many; have it send only the groups that are "
                "assigned to this gateway"
            )
        groups = claims.get(self.groups_claim, [])
        if isinstance(groups, str):  # a provider with one group
            groups = [groups]
        if not isinstance(groups, list) or len(groups) > MOST_GROUPS:
            raise ConfigError(f"the claim {self.groups_claim} is not a list of at most {MOST_GROUPS} groups")
        return Person(
            name=name,
            source=source,
            subject=subject,
            groups=frozenset(group for group in groups if isinstance(group, str)),
            display_name=_text(claims, "name"),
            email=email,
        )


def sign_in_path(directory: str) -> str:
    """The path of this site that leads to the provider of a directory."""
    return f"/sign-in/directory/{quote(directory)}"


def callback_path(directory: str) -> str:
    """The path of this site that the provider sends browsers back to, which is to be registered there."""
    return f"{sign_in_path(directory)}/callback"


def _check_issuer(issuer: str) -> None:
    parts = _split(issuer)
    if parts.query or parts.fragment:
        raise ConfigError(f"issuer {issuer!a}: it has no ? and no #; give it as the provider writes it")
    check_url("issuer", issuer)


def check_url(what: str, url: object) -> str:
    """Return an address that what is secret may be sent to. Raises ConfigError for any but HTTPS's, and loopback's."""
    if not isinstance(url, str):
        raise ConfigError(f"{what}: the provider does not name it")
    parts = _split(url)
    if parts.scheme == "http" and parts.hostname in LOOPBACK:
        return url
    if parts.scheme != "https" or not parts.hostname or parts.username is not None or not url.isprintable():
        raise ConfigError(f"{what} {url!a}: expected an address that begins with https://")
    return url


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!a}: {error}") from None
    return parts


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return "".join(filter(str.isprintable, value))[:255] if isinstance(value, str) else ""
