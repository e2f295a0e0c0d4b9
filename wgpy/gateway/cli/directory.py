"""`wgpy gateway directory`: where people come from that are not kept here. What each kind asks for has its module."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any, Final

from wgpy.errors import ConfigError
from wgpy.gateway.cli import common, directory_ldap, directory_oidc
from wgpy.gateway.policy import texts
from wgpy.gateway.policy.directories import Directory, GroupMapping
from wgpy.gateway.policy.oidc import callback_path

_KINDS: Final[Mapping[str, ModuleType]] = {"ldap": directory_ldap, "oidc": directory_oidc}


def add(objects: Any) -> None:
    actions = common.kind(objects, "directory", "manage directories: where people come from that are not kept here")
    for verb, summary, call in (("add", "add", _add), ("set", "change", _set)):
        made = actions.add_parser(verb, help=f"{summary} a directory", description=f"{summary.title()} a directory.")
        kinds = made.add_subparsers(metavar="KIND", required=True)
        for kind, module in _KINDS.items():
            made = common.command(kinds, kind, f"{summary} {module.SUMMARY}", call, epilog=module.EPILOG)
            made.add_argument("name", metavar="NAME", help="what this gateway calls it")
            module.options(made)
            _options(made, module.SECRET)
            made.set_defaults(kind=kind)
    common.command(actions, "list", "list all directories", _list)
    for verb, summary, call in (
        ("show", "show a directory's settings, without its secret", _show),
        ("check", "ask a directory whether it can be used as it is set", _check),
        ("remove", "remove a directory", _remove),
    ):
        made = common.command(actions, verb, summary, call)
        made.add_argument("name", metavar="NAME", help="the directory's name")
        if verb == "remove":
            made.add_argument("--with-users", action="store_true", help="also remove the users that come from it")


def _options(parser: argparse.ArgumentParser, secret: str) -> None:
    parser.add_argument(
        f"--{secret}-file",
        metavar="FILE",
        dest="secret",
        help=f"a file with the {secret.replace('-', ' ')}; - for standard input",
    )
    parser.add_argument(
        "--group",
        metavar="THEIRS=OURS",
        action="append",
        help="a group there, and the group here that it stands for; may be repeated",
    )
    parser.add_argument(
        "--group-prefix", metavar="PREFIX", help="groups there that are called PREFIX and then as a group here are it"
    )
    parser.add_argument("--all-groups", action="store_true", help="groups there that are called as a group here are it")
    parser.add_argument(
        "--grace", metavar="TIME", help="sessions go on for so long if the directory cannot be asked (default: 1h)"
    )


def _groups(arguments: argparse.Namespace, before: GroupMapping) -> GroupMapping:
    if arguments.all_groups and arguments.group_prefix is not None:
        raise ConfigError("--all-groups and --group-prefix: give one of them")
    given: dict[str, Any] = {}
    if arguments.group is not None:
        given["names"] = texts.pairs("group", arguments.group)
    if arguments.all_groups or arguments.group_prefix is not None:
        given["prefix"] = arguments.group_prefix or ""
    return replace(before, **given)


def _grace(arguments: argparse.Namespace) -> dict[str, Any]:
    return {} if arguments.grace is None else {"grace": texts.duration(arguments.grace)}


def _read_secret(arguments: argparse.Namespace) -> bytes | None:
    """The secret from a file or standard input; None if none was given."""
    return None if arguments.secret is None else common.read_secret(arguments.secret, "Secret: ").encode()


def _add(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.identity.administration import directory_settings
    from wgpy.gateway.store import directories

    made = Directory(
        name=arguments.name,
        kind=arguments.kind,
        settings=directory_settings(arguments.kind, _KINDS[arguments.kind].settings(arguments, None)),
        groups=_groups(arguments, GroupMapping()),
        **_grace(arguments),
    )
    secret = _read_secret(arguments) or b""
    with common.changing(arguments) as change:
        directories.add(change, made, secret)
    text = f"directory {made.name} added; `wgpy gateway directory check {made.name}` asks it whether all is well"
    return common.done(arguments, text, made.json())


def _set(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.identity.administration import directory_settings
    from wgpy.gateway.store import directories

    secret = _read_secret(arguments)
    with common.changing(arguments) as change:
        before = directories.find(change.connection, arguments.name)
        if before.kind != arguments.kind:
            raise ConfigError(f"directory {before.name}: it is of the kind {before.kind}, not {arguments.kind}")
        changed = replace(
            before,
            settings=directory_settings(before.kind, _KINDS[before.kind].settings(arguments, before.settings)),
            groups=_groups(arguments, before.groups),
            **_grace(arguments),
        )
        directories.replace(change, changed, secret)
    return common.done(arguments, f"directory {changed.name} changed", changed.json())


def _list(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import directories

    with common.reading(arguments) as connection:
        rows = [directory.json() for directory in directories.find_all(connection)]
    if not arguments.json:
        rows = [{**row, "where": _KINDS[row["kind"]].where(row["settings"])} for row in rows]
    return common.show(arguments, rows, {"name": "DIRECTORY", "kind": "KIND", "where": "WHERE"})


def _show(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import directories

    with common.reading(arguments) as connection:
        values = directories.find(connection, arguments.name).json()
    if not arguments.json:
        settings = values.pop("settings")
        if settings.get("ca"):
            number = settings["ca"].count("BEGIN CERTIFICATE")
            settings["ca"] = f"{number} certificate{'s' * (number > 1)}"
        values |= {**settings, "groups": values["groups"]["names"], "group_prefix": values["groups"]["prefix"]}
    return common.show_one(arguments, values)


def _check(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.identity import directory as identity
    from wgpy.gateway.store import directories, endpoint

    database = common.database(arguments)
    with database.read() as connection:
        directory, url = directories.find(connection, arguments.name), endpoint.find(connection).url
        secret = directories.secret(connection, database.vault, arguments.name)
    findings = identity.check(directory, secret)
    if directory.kind == "oidc":
        findings["redirect_uri"] = f"{url}{callback_path(directory.name)}" if url else "set the endpoint's --url first"
    return common.show_one(arguments, findings)


def _remove(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import directories

    with common.changing(arguments) as change:
        gone = directories.remove(change, arguments.name, with_users=arguments.with_users)
    text = f"directory {arguments.name} removed" + f", with {len(gone)} users" * bool(gone)
    return common.done(arguments, text, {"name": arguments.name, "users": gone})
