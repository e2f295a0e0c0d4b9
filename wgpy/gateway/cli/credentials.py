"""`wgpy gateway user password`, `totp`, `invite` and `reset`: what users sign in with."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from wgpy.gateway.cli import common

_EPILOG: Final = "The secret is never an argument, because other users of this machine can read those."


def add(actions: Any) -> None:
    """Add the commands to those of `wgpy gateway user`."""
    made = common.command(
        actions, "password", "set a local user's password, which is asked for, and sign the user out", _password,
        epilog=f"{_EPILOG} To let people choose theirs themselves: wgpy gateway user invite NAME.",
    )  # fmt: skip
    made.add_argument("--password-file", metavar="FILE", help="a file that has the password; - for standard input")
    _name(made)
    _name(common.command(
        actions, "invite", "print a link with which a local user chooses a password, once, within 24 hours", _invite,
        epilog="The link is as good as a password: send it by a way that only its user can read. A new link replaces "
        "the one before.",
    ))  # fmt: skip
    _name(common.command(
        actions, "totp", "set up a user's authenticator app: show its QR code and recovery codes, once", _totp,
        epilog="People can do this themselves after they have signed in.",
    ))  # fmt: skip
    _name(common.command(
        actions, "reset", "forget a user's password, authenticator app and passkeys, and sign the user out", _reset,
        epilog="For somebody who has lost the phone. Afterwards: wgpy gateway user invite NAME.",
    ))  # fmt: skip


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the user's name")


def _password(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.identity import administration
    from wgpy.gateway.identity.passwords import Hasher
    from wgpy.gateway.store import credentials

    with common.reading(arguments) as connection:
        credentials.check_local(connection, arguments.name)
    password = common.read_secret(arguments.password_file or "-", f"New password of {arguments.name}: ", twice=True)
    encoded = administration.encode(Hasher(), arguments.name, password)
    with common.changing(arguments) as change:
        administration.set_password(change, arguments.name, encoded)
    return common.done(arguments, f"password of {arguments.name} set", {"name": arguments.name})


def _invite(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.identity import administration

    with common.changing(arguments) as change:
        made = administration.invite(change, arguments.name)
    print(json.dumps({"name": arguments.name, **made.json()}, indent=2) if arguments.json else made.url)
    return 0


def _totp(arguments: argparse.Namespace) -> int:
    from wgpy.daemon.qr import qr_code
    from wgpy.gateway.identity import administration

    with common.changing(arguments) as change:
        made = administration.set_up_app(change, arguments.name)
    if arguments.json:
        print(json.dumps({"name": arguments.name, **made.json()}, indent=2))
        return 0
    qr_code(made.uri, show=True)
    print(f"Or type this into the app: {made.secret}\n\nRecovery codes, each good once, if the app is lost:")
    print(*made.recovery_codes, sep="\n")
    return 0


def _reset(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.identity import administration

    with common.changing(arguments) as change:
        ended = administration.reset(change, arguments.name)
    name = arguments.name
    what = f"user {name} has nothing to sign in with now; `wgpy gateway user invite {name}` prints a link"
    return common.done(arguments, what, {"name": name, "signed_out": ended})
