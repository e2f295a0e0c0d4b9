"""`wgpy gateway export`, and `import` of another gateway's wg-quick file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from wgpy.daemon.files import read_text
from wgpy.gateway.cli import common


def add(objects: Any) -> None:
    common.command(
        objects,
        "export",
        "print all objects as JSON, without any secret key",
        _export,
        epilog="To move a gateway, use `wgpy gateway backup` and its key file.",
    )
    made = common.command(
        objects,
        "import",
        "take over the clients of a wg-quick file, such as those of `wgpy client` or wg-easy",
        _import,
        epilog="Each peer becomes a user with one device, both with the peer's name. The file's private key and port "
        "become the gateway's, so clients connect as before, with the files that they have.",
    )
    made.add_argument(
        "file", metavar="FILE", type=Path, help="the other gateway's file, such as /etc/wireguard/wg0.conf"
    )
    made.add_argument(
        "--group", metavar="GROUP", action="append", default=[], help="a group for these users; may be repeated"
    )


def _export(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import transfer

    with common.reading(arguments) as connection:
        print(json.dumps(transfer.everything(connection), indent=2))
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import endpoint, transfer

    text = read_text(arguments.file)
    with common.changing(arguments) as change:
        names = transfer.take_over(change, str(arguments.file), text, arguments.group)
        key = endpoint.private_key(change.connection, change.vault).public_key.base64()
    if names:
        what = (
            f"{len(names)} clients of {arguments.file} taken over; take that interface down before you run the gateway"
        )
    else:
        what = f"the gateway's private key is that of {arguments.file} now; clients need its public key: {key}"
    return common.done(arguments, what, {"users": names, "devices": names, "public_key": key})
