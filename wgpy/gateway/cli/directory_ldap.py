"""What `wgpy gateway directory add ldap` asks for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

from wgpy.errors import ConfigError
from wgpy.gateway.cli import common
from wgpy.gateway.policy import texts
from wgpy.gateway.policy.ldap import ACTIVE_DIRECTORY, Membership

SUMMARY: Final = "an LDAP directory, such as OpenLDAP, FreeIPA or Active Directory"
SECRET: Final = "password"
EPILOG: Final = (
    "Examples: wgpy gateway directory add ldap corp --server ldaps://ldap.example.org "
    "--base ou=people,dc=example,dc=org --group-base ou=groups,dc=example,dc=org "
    "--bind-dn cn=vpn,dc=example,dc=org --password-file secret --group engineers=staff. "
    "wgpy gateway directory add ldap ad --active-directory --server ldaps://dc1.corp.example --base dc=corp,dc=example "
    "--bind-dn vpn@corp.example --password-file secret --all-groups"
)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of its settings."""
    parser.add_argument(
        "--server", metavar="URL", action="append",
        help="ldaps://HOST, or ldap://HOST for StartTLS; may be repeated; they are tried in this order",
    )  # fmt: skip
    parser.add_argument("--base", metavar="DN", help="the entry below which people are")
    parser.add_argument("--group-base", metavar="DN", help="the entry below which groups are (default: --base)")
    parser.add_argument("--bind-dn", metavar="DN", help="the account that searches; its password is --password-file's")
    parser.add_argument(
        "--active-directory", action="store_true", help="begin with the attributes and filters of Active Directory"
    )
    parser.add_argument("--user-filter", metavar="FILTER", help="who may sign in (default: (objectClass=person))")
    parser.add_argument("--group-filter", metavar="FILTER", help="what a group is (default: (objectClass=*))")
    parser.add_argument("--login", metavar="ATTRIBUTE", help="what people type, and are named by (default: uid)")
    parser.add_argument("--subject", metavar="ATTRIBUTE", help="what names an entry for ever (default: entryUUID)")
    parser.add_argument("--group-name", metavar="ATTRIBUTE", help="what groups are named by (default: cn)")
    parser.add_argument(
        "--membership", metavar="HOW", choices=[*Membership],
        help="member: groups name their members (default); memberof: entries name their groups; chain: Active "
        "Directory finds groups in groups",
    )  # fmt: skip
    parser.add_argument("--timeout", metavar="TIME", help="how long a sign-in may take at most (default: 10s)")
    parser.add_argument(
        "--plain", action=argparse.BooleanOptionalAction, help="ldap:// without StartTLS: passwords can be read"
    )
    common.ca_option(parser)


def settings(arguments: argparse.Namespace, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings that were given, over those `before`. Raises ConfigError."""
    values: dict[str, Any] = {**(before or {}), **(ACTIVE_DIRECTORY if arguments.active_directory else {})}
    for key in (
        "base", "group_base", "bind_dn", "user_filter", "group_filter", "login", "subject", "group_name", "membership",
        "plain",
    ):  # fmt: skip
        if (value := getattr(arguments, key)) is not None:
            values[key] = value
    if arguments.server is not None:
        values["servers"] = arguments.server
    if arguments.timeout is not None:
        values["timeout"] = texts.duration(arguments.timeout)
    if arguments.ca is not None:
        values["ca"] = common.trusted(arguments.ca)
    for key, option in (("servers", "server"), ("base", "base")):
        if key not in values:
            raise ConfigError(f"directory: --{option} is missing; `-h` says what it is")
    return values


def where(values: Mapping[str, Any]) -> str:
    """Where the directory is, for `list`."""
    return ", ".join(values["servers"])
