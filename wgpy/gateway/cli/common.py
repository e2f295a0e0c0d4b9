"""What the commands share: where the store is, who asks, and how things are printed."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from getpass import getpass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wgpy.daemon.files import read_text
from wgpy.errors import ConfigError, WgpyError
from wgpy.gateway.policy import texts

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from wgpy.gateway.store.database import Change, Database

DIRECTORY: Final = Path("/var/lib/wgpy/gateway")
KEY: Final = Path("/etc/wgpy/gateway.key")
_LONGEST: Final = 10_000  # characters of a secret


def command(
    objects: Any, name: str, summary: str, call: Callable[[argparse.Namespace], int], **more: str
) -> argparse.ArgumentParser:
    """Add a command with the options that all have."""
    made: argparse.ArgumentParser = objects.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", **more
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    place_options(made, argparse.SUPPRESS, argparse.SUPPRESS)  # what stands before the command goes on
    made.set_defaults(call=partial(_call, call))
    return made


def place_options(parser: argparse.ArgumentParser, directory: Path | str, key: Path | str) -> None:
    """Add the options that say where the gateway is, with their values if they are not given."""
    parser.add_argument(
        "--directory", metavar="DIR", type=Path, default=directory,
        help=f"where the gateway's database is, or its URL (default: $WGPY_GATEWAY or {DIRECTORY})",
    )  # fmt: skip
    parser.add_argument(
        "--key", metavar="FILE", type=Path, default=key,
        help=f"the key that the database's secrets are sealed with (default: $WGPY_GATEWAY_KEY or {KEY})",
    )  # fmt: skip


def _call(call: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command, unless its libraries are missing or a text could not be stored or shown. Raises ConfigError."""
    require_libraries()
    for name, value in vars(arguments).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                texts.printable(name, text)
    return call(arguments)


def kind(objects: Any, name: str, summary: str) -> Any:
    """Add a kind of object, whose commands are added to what is returned."""
    made = objects.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    return made.add_subparsers(metavar="ACTION", required=True)


def url_file(arguments: argparse.Namespace) -> Path:
    """The file that has the URL of a database in PostgreSQL, if the gateway has one."""
    path: Path = arguments.directory / "database.url"
    return path


def location(arguments: argparse.Namespace) -> tuple[Path | str, Path]:
    """Where the database is, a file or a URL, and the file of its key. Raises ConfigError."""
    path = url_file(arguments)
    return (read_text(path).strip() if path.exists() else arguments.directory / "gateway.db"), arguments.key


@contextmanager
def using(arguments: argparse.Namespace, url: str) -> Iterator[None]:
    """Write down that the database of this host is at a URL, unless the block raises. Raises ConfigError."""
    from wgpy.gateway.store import postgresql
    from wgpy.gateway.store.files import make_directory, new

    if risk := postgresql.risk(url):
        print(f"wgpy: warning: {risk}", file=sys.stderr)
    make_directory(arguments.directory)
    path, place = url_file(arguments), location(arguments)[0]
    if place == url:
        yield
        return
    with new(path, f"{url}\n".encode()):
        yield


def check_unused(arguments: argparse.Namespace, url: str) -> None:
    """Raises ConfigError if this host has a gateway whose database is elsewhere."""
    from wgpy.gateway.store.database import Database

    place = location(arguments)[0]
    if place != url and Database.exists(place):
        raise ConfigError(f"{place}: there is a gateway here already; `wgpy gateway migrate` moves its database")


def made(place: Path | str, key: Path) -> Database:
    """A new database, or one that is empty because a command was killed that made it. Raises ConfigError."""
    from wgpy.gateway.store import endpoint
    from wgpy.gateway.store.database import Database

    if not Database.exists(place):
        return Database.create(place, key)
    database = Database(place, key)
    with database.read() as connection:
        is_used = database.is_shared and endpoint.exists(connection)
    if is_used:
        database.close()
        raise ConfigError(f"{database.name}: has a gateway already; `wgpy gateway join` shares a database with it")
    return database


def node_option(command: argparse.ArgumentParser) -> None:
    """Add the option that names this gateway."""
    command.add_argument(
        "--node", metavar="NAME",
        help="this gateway among those that share a database (default: $WGPY_GATEWAY_NODE or the host's name)",
    )  # fmt: skip


def node(arguments: argparse.Namespace) -> str:
    """What this gateway is called among those that share a database."""
    given: str | None = getattr(arguments, "node", None)
    return given or os.environ.get("WGPY_GATEWAY_NODE") or socket.gethostname()


def database(arguments: argparse.Namespace) -> Database:
    """Open the store. Raises ConfigError and ControlError."""
    from wgpy.gateway.store.database import Database

    return Database(*location(arguments), node=node(arguments))


def require_libraries(*more: str) -> None:
    """Raises ConfigError if what the extra brings is missing: what all commands need, and `more`."""
    for name in ("sqlalchemy", "alembic", *more):
        if find_spec(name) is None:
            raise ConfigError(f"wgpy gateway needs {name}: {sys.executable} -m pip install 'wgpy[gateway]'")


@contextmanager
def reading(arguments: argparse.Namespace) -> Iterator[Connection]:
    """A connection to read from."""
    with closing(database(arguments)) as opened, opened.read() as connection:
        yield connection


@contextmanager
def changing(arguments: argparse.Namespace) -> Iterator[Change]:
    """A transaction in the name of whoever runs the command. It is in force at once, even if no gateway runs."""
    with closing(database(arguments)) as opened:
        with opened.change(who()) as change:
            yield change
        put_in_force(opened)


def put_in_force(database: Database) -> None:
    """If no gateway runs, hold the sessions that the last one left to the database, as far as we may."""
    from wgpy.gateway.enforcement.dataplane import DataPlane
    from wgpy.gateway.enforcement.nft import Firewall
    from wgpy.gateway.service import absence
    from wgpy.gateway.store import endpoint, nodes, sessions

    if database.is_running():
        return
    with database.read() as connection:
        interface, port = nodes.interface(connection, database.node), endpoint.find(connection).port
        key = endpoint.private_key(connection, database.vault)
        is_used = bool(sessions.under_way(connection, database.node))
    try:
        DataPlane().check(interface, key)  # the table may be that of another gateway on this host
        absence.put_in_force(database, Firewall(interface, port), database.clock())
    except WgpyError as error:
        if is_used:  # else there is nothing to hold to anything
            print(f"wgpy: {error}; sessions of before go on until the gateway runs", file=sys.stderr)


def who() -> str:
    """Who runs the command: with sudo, whoever called it."""
    name = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    try:
        return name or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def ca_option(command: argparse.ArgumentParser) -> None:
    """Add the option whose certificates a directory's servers are checked against; `trusted` reads them."""
    command.add_argument(
        "--ca", metavar="FILE", type=Path,
        help="trust these certificates (PEM) instead of the system's; `none` undoes it",
    )  # fmt: skip


def trusted(path: Path) -> str:
    """Read certificates in PEM; `none` is none. Raises ConfigError."""
    from wgpy.gateway.identity import trust

    if path == Path("none"):
        return ""
    text = read_text(path)
    try:
        trust.check(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return text


def read_secret(source: str, prompt: str, *, twice: bool = False) -> str:
    """Read one line with a secret: of a file, or with `-` of standard input, where people are asked for it.

    `twice` asks them to repeat what they cannot see. Raises ConfigError.
    """
    if source != "-":
        text = read_text(Path(source))
    elif sys.stdin.isatty():
        text = getpass(prompt)
        if twice and getpass("Again: ") != text:
            raise ConfigError("the two are not the same; nothing was changed")
    else:
        text = sys.stdin.read(_LONGEST + 1)
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret or len(secret) > _LONGEST or not secret.isprintable():
        raise ConfigError(f"{source}: expected one line with a secret")
    return secret


def show(arguments: argparse.Namespace, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> int:
    """Print rows as JSON, or as a table with these `columns`: a key of the rows, and its heading."""
    if arguments.json:
        print(json.dumps(rows, indent=2, default=str))
        return 0
    table = [list(columns.values()), *([_cell(row[key]) for key in columns] for row in rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(columns))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def show_one(arguments: argparse.Namespace, values: Mapping[str, Any]) -> int:
    """Print one object as JSON, or as a table of its values."""
    if arguments.json:
        print(json.dumps(values, indent=2, default=str))
        return 0
    rows = [{"key": key, "value": value} for key, value in values.items()]
    return show(arguments, rows, {"key": "SETTING", "value": "VALUE"})


def done(arguments: argparse.Namespace, what: str, value: Mapping[str, Any]) -> int:
    """Say what was done: as JSON the object, else a sentence on standard error."""
    if arguments.json:
        print(json.dumps(value, indent=2, default=str))
    else:
        print(what, file=sys.stderr)
    return 0


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_cell(each)}" for key, each in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)
