"""`wgpy gateway migrate` and `join`: a database in PostgreSQL, for one gateway or several."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Any

from wgpy.errors import ConfigError
from wgpy.gateway.cli import common

_EXAMPLE = "postgresql://wgpy@db.example.org/wgpy"


def add(objects: Any) -> None:
    made = common.command(
        objects,
        "migrate",
        "copy everything into an empty database in PostgreSQL, and use that from now on",
        _migrate,
        epilog=f"Stop the gateway first. The old database stays. Example: wgpy gateway migrate --to {_EXAMPLE}",
    )
    made.add_argument("--to", metavar="URL", required=True, help="the new database, which must be empty")
    made = common.command(
        objects,
        "join",
        "make this host another gateway of those that share a database",
        _join,
        epilog=f"Copy the key file of another gateway here first. Example: wgpy gateway join {_EXAMPLE}",
    )
    made.add_argument("url", metavar="URL", help="the database of the other gateways")


def _migrate(arguments: argparse.Namespace) -> int:
    with closing(common.database(arguments)) as source:
        if source.is_shared:
            raise ConfigError(f"{source.name}: is in PostgreSQL already; pg_dump and pg_restore move such a database")
        with (
            source.running(),  # so that no gateway does
            closing(common.made(arguments.to, arguments.key)) as target,
            common.using(arguments, arguments.to),
        ):
            count = source.copy_to(target, common.who())
    text = f"{count} rows copied to {target.name}; {source.name} is no longer used, and is as it was"
    return common.done(arguments, text, {"rows": count, "from": source.name, "to": target.name})


def _join(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import endpoint
    from wgpy.gateway.store.database import Database

    key = arguments.key
    common.check_unused(arguments, arguments.url)
    if not key.exists():
        raise ConfigError(f"{key}: there is no key yet; copy that of another gateway of this database, with mode 0600")
    with closing(Database(arguments.url, key)) as database, database.read() as connection:
        endpoint.private_key(connection, database.vault)  # which only the same key opens
        name = database.name
    with common.using(arguments, arguments.url):
        pass  # the file stays
    text = f"this host is a gateway of {name}, with the name {common.node(arguments)}; `wgpy gateway run` runs it"
    return common.done(arguments, text, {"database": name, "node": common.node(arguments)})
