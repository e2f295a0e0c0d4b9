"""`wgpy gateway device`."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from wgpy.daemon.files import new_file
from wgpy.errors import ConfigError
from wgpy.gateway.cli import common
from wgpy.gateway.policy import texts
from wgpy.gateway.policy.names import checked
from wgpy.keys import PublicKey


def add(objects: Any) -> None:
    actions = common.kind(objects, "device", "manage devices: each is a key of a user, with its addresses")
    made = common.command(
        actions,
        "add",
        "add a device, and write its file for any WireGuard app",
        _add,
        epilog="The device's private key is only in that file and in the QR code: it is stored nowhere else. Example: "
        "wgpy gateway device add alice-phone --user alice --qr",
    )
    made.add_argument("name", metavar="NAME", help="a name for the device")
    made.add_argument("--user", metavar="USER", required=True, help="the user whose device it is")
    made.add_argument(
        "--public-key", metavar="KEY", help="the public key, if its owner has made the key; else one is made here"
    )
    made.add_argument(
        "--address",
        metavar="ADDRESS",
        action="append",
        help="a fixed address from a pool; once for IPv4 and once for IPv6",
    )
    made.add_argument("--output", metavar="FILE", type=Path, help="the device's file (default: NAME.conf here)")
    made.add_argument("--qr", action="store_true", help="show the file as a QR code, and write that to NAME.png")
    common.command(actions, "list", "list all devices", _list)
    for name, summary, call in (
        ("enable", "let a device in again", _enable),
        ("disable", "end a device's session, and let none begin", _enable),
        ("sign-in", "confirm that its user is who they say: a session may begin", _sign_in),
        ("remove", "remove a device; its key gets the same address if it comes back", _remove),
    ):
        made = common.command(actions, name, summary, call)
        made.add_argument("name", metavar="NAME", help="the device's name")
        made.set_defaults(enabled=name == "enable")


def _add(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store.enrolment import enrol

    name = checked("device", arguments.name)
    key = PublicKey.from_base64(arguments.public_key) if arguments.public_key else None
    static = [texts.address("address", text) for text in arguments.address or ()]
    path: Path = arguments.output or Path(f"{name}.conf")
    with ExitStack() as written, common.changing(arguments) as change:  # the files and the row, or none of them
        device, text = enrol(change, name, arguments.user, key, static)
        files = {path: text.encode()}
        if arguments.qr:
            from wgpy.daemon.qr import qr_code

            files[path.with_suffix(".png")] = qr_code(text, show=not arguments.json)
        for file, content in files.items():
            try:
                written.enter_context(new_file(file, content))
            except OSError as error:
                raise ConfigError(f"{file}: {error.strerror}; nothing was changed") from error
    what = f"device {name} added with {', '.join(map(str, device.addresses))}: {', '.join(map(str, files))}"
    return common.done(arguments, what, {**device.json(), "files": list(map(str, files))})


def _enable(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import devices

    with common.changing(arguments) as change:
        devices.enable(change, arguments.name, enabled=arguments.enabled)
        device = devices.find(change.connection, arguments.name)
    return common.done(arguments, f"device {device.name} {'en' if device.enabled else 'dis'}abled", device.json())


def _sign_in(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import devices

    with common.changing(arguments) as change:
        devices.sign_in(change, arguments.name)
        device = devices.find(change.connection, arguments.name)
    return common.done(arguments, f"device {device.name} is signed in", device.json())


def _remove(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import devices

    with common.changing(arguments) as change:
        devices.remove(change, arguments.name)
    return common.done(arguments, f"device {arguments.name} removed", {"name": arguments.name})


def _list(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import devices

    with common.reading(arguments) as connection:
        rows = [device.json() for device in devices.find_all(connection)]
    if not arguments.json:
        rows = [{**row, "signed_in_at": texts.moment(row["signed_in_at"])} for row in rows]
    columns = {
        "name": "DEVICE",
        "user": "USER",
        "addresses": "ADDRESSES",
        "enabled": "ENABLED",
        "signed_in_at": "SIGNED IN",
    }
    return common.show(arguments, rows, {**columns, "public_key": "PUBLIC KEY"})
