"""What `wgpy gateway directory add oidc` asks for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

from wgpy.errors import ConfigError
from wgpy.gateway.cli import common
from wgpy.gateway.policy import texts

SUMMARY: Final = "a provider of OpenID Connect, such as Keycloak, Entra ID, Google, Okta or dex"
SECRET: Final = "client-secret"
EPILOG: Final = (
    "Example: wgpy gateway directory add oidc corp --issuer https://id.example.org --client-id vpn "
    "--client-secret-file secret --group vpn-users=staff"
)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of its settings."""
    parser.add_argument("--issuer", metavar="URL", help="the provider's address, as it writes it itself")
    parser.add_argument("--client-id", metavar="ID", help="what the provider calls this gateway")
    parser.add_argument(
        "--scope", metavar="SCOPE", action="append",
        help="a scope to ask for; may be repeated (default: openid, profile, email, and groups and offline_access if "
        "offered)",
    )  # fmt: skip
    parser.add_argument("--groups-claim", metavar="CLAIM", help="the claim that has the groups (default: groups)")
    parser.add_argument(
        "--name-claim", metavar="CLAIM", help="the claim that users are named by (default: preferred_username)"
    )
    parser.add_argument(
        "--require",
        metavar="CLAIM=VALUE",
        action="append",
        help="a claim that people must have, such as hd=example.org",
    )
    parser.add_argument(
        "--parameter", metavar="NAME=VALUE", action="append",
        help="what to add to requests for authentication, such as access_type=offline for Google",
    )  # fmt: skip
    common.ca_option(parser)


def settings(arguments: argparse.Namespace, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings that were given, over those `before`. Raises ConfigError."""
    values: dict[str, Any] = dict(before or {})
    for key in ("issuer", "client_id", "groups_claim", "name_claim"):
        if (value := getattr(arguments, key)) is not None:
            values[key] = value
    if arguments.scope is not None:
        values["scopes"] = tuple(arguments.scope)
    for key, option in (("require", arguments.require), ("parameters", arguments.parameter)):
        if option is not None:
            values[key] = texts.pairs(key, option)
    if arguments.ca is not None:
        values["ca"] = common.trusted(arguments.ca)
    for key in ("issuer", "client_id"):
        if key not in values:
            raise ConfigError(f"directory: --{key.replace('_', '-')} is missing; `-h` says what it is")
    return values


def where(values: Mapping[str, Any]) -> str:
    """Where the directory is, for `list`."""
    return str(values["issuer"])
