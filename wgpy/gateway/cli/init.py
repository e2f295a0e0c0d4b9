"""`wgpy gateway init`: make a gateway."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

from wgpy.errors import ConfigError
from wgpy.gateway.cli import common
from wgpy.gateway.cli.endpoint import options, settings
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.keys import PrivateKey


def add(objects: Any) -> None:
    made = common.command(
        objects,
        "init",
        "make a gateway: its database, its keys and its settings",
        _init,
        epilog="Example: wgpy gateway init --host vpn.example.org --pool 10.99.0.0/22 --pool fd00:99::/64",
    )
    options(made)
    made.add_argument(
        "--admin",
        metavar="NAME",
        help="with --url: make the first administrator, and print a link with which they choose a password, once",
    )
    made.add_argument(
        "--database",
        metavar="URL",
        help="keep everything in PostgreSQL, in this empty database, which other gateways can share",
    )


def _init(arguments: argparse.Namespace) -> int:
    given = settings(arguments)
    for key, option in (("host", "--host"), ("pools", "--pool")):
        if key not in given:
            raise ConfigError(f"init: {option} is missing; `wgpy gateway init -h` says what it is")
    if arguments.admin and "url" not in given:
        raise ConfigError("init: --admin is for the console, which is at --url, and that is missing")
    made = Endpoint(**given)  # checked before anything is written
    from wgpy.gateway.identity import administration
    from wgpy.gateway.service.settings import check_host
    from wgpy.gateway.store import endpoint

    check_host(made)
    place, key_file = common.location(arguments)
    using: AbstractContextManager[None] = nullcontext()
    if url := arguments.database:
        common.check_unused(arguments, url)
        using = common.using(arguments, url)
    with (
        using,
        closing(common.made(url or place, key_file)) as database,
        database.change(common.who()) as change,
    ):
        endpoint.add(change, made, PrivateKey.generate())
        link = administration.first_administrator(change, arguments.admin) if arguments.admin else None
    text = (
        f"{database.name} and {key_file} are made; keep a copy of the key, but not beside a copy of the database. "
        "Next, add a route, a group, a rule and a user with a device, and start `wgpy gateway run`"
    )
    values = {"database": database.name, "key": str(key_file), **made.json()}
    if link:
        text += (
            f". Once `wgpy gateway run --https` serves it, {arguments.admin} chooses a password at this link, which is "
            "good once, for 24 hours:"
        )
        values["link"] = link.json()
    status = common.done(arguments, text, values)
    if link and not arguments.json:
        print(link.url)
    return status
