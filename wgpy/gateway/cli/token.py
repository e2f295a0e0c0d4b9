"""`wgpy gateway token`."""

from __future__ import annotations

import argparse
import time
from typing import Any

from wgpy.gateway.cli import common
from wgpy.gateway.policy import texts
from wgpy.gateway.policy.tokens import SCOPES, Token


def add(objects: Any) -> None:
    actions = common.kind(objects, "token", "manage tokens, with which programs use the API over HTTPS")
    made = common.command(
        actions,
        "add",
        "make a token, and print it once",
        _add,
        epilog="The scopes: " + "; ".join(f"{scope}: {what}" for scope, what in SCOPES.items()) + ".",
    )
    made.add_argument("name", metavar="NAME", help="which program it is for; the audit log has the name")
    made.add_argument(
        "--scope", metavar="SCOPE", action="append", default=[], help=f"what it is for: {', '.join(SCOPES)}"
    )
    made.add_argument("--expires", metavar="DATE", help="the last day on which it is good, or a moment")
    common.command(actions, "list", "list all tokens, without their text", _list)
    made = common.command(actions, "remove", "remove a token: it is of no use from now on", _remove)
    made.add_argument("name", metavar="NAME", help="the token's name")


def _add(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import tokens

    expires = None if arguments.expires is None else texts.date(arguments.expires)
    token = Token(name=arguments.name, scopes=frozenset(arguments.scope), made_at=time.time(), expires=expires)
    with common.changing(arguments) as change:
        text = tokens.add(change, token)
    if not arguments.json:
        print(text)
    what = f"token {token.name} added; it is shown only now. Send it as the header `Authorization: Bearer TOKEN`"
    return common.done(arguments, what, {**token.json(), "token": text})


def _list(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import tokens

    with common.reading(arguments) as connection:
        rows = [token.json() for token in tokens.find_all(connection)]
    if not arguments.json:
        rows = [
            {
                **row,
                "made_at": texts.moment(row["made_at"]),
                "expires": texts.expiry(row["expires"]),
                "used_at": texts.moment(row["used_at"]),
            }
            for row in rows
        ]
    columns = {"name": "TOKEN", "scopes": "SCOPES", "made_at": "MADE", "expires": "EXPIRES", "used_at": "LAST USED"}
    return common.show(arguments, rows, columns)


def _remove(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import tokens

    with common.changing(arguments) as change:
        tokens.remove(change, arguments.name)
    return common.done(arguments, f"token {arguments.name} removed", {"name": arguments.name})
