"""`wgpy gateway user password`, `totp`, `invite` and `reset`: what users sign in with."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from wgpy.errors import ConfigError
from wgpy.gateway.cli import common

LIFETIME: Final = 24 * 3600  # seconds: a link goes by mail, and is read on the next working day at the latest
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
    from wgpy.gateway.identity.passwords import Hasher, refusal
    from wgpy.gateway.store import credentials, logins

    with common.reading(arguments) as connection:
        credentials.check_local(connection, arguments.name)
    password = common.read_secret(arguments.password_file or "-", f"New password of {arguments.name}: ", twice=True)
    if why := refusal(arguments.name, password):
        raise ConfigError(f"user {arguments.name}: {why}")
    encoded = Hasher().hash(password)
    with common.changing(arguments) as change:
        credentials.set_password(change, arguments.name, encoded)
        logins.end_all(change, arguments.name)
    return common.done(arguments, f"password of {arguments.name} set", {"name": arguments.name})


def _invite(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import credentials, endpoint, links

    with common.changing(arguments) as change:
        credentials.check_local(change.connection, arguments.name)
        url = endpoint.find(change.connection).url
        if not url:
            raise ConfigError(
                "endpoint: has no url, where people find the gateway's pages; `wgpy gateway endpoint set --url "
                "https://vpn.example.org` sets it"
            )
        secret = links.add(change, links.SET_UP, arguments.name, LIFETIME)
        made = {"name": arguments.name, "url": f"{url}/set-up/{secret}", "expires": change.now + LIFETIME}
    if arguments.json:
        print(json.dumps(made, indent=2))
    else:
        print(made["url"])
    return 0


def _totp(arguments: argparse.Namespace) -> int:
    from wgpy.daemon.qr import qr_code
    from wgpy.gateway.identity import totp
    from wgpy.gateway.store import credentials, endpoint

    seed, codes = totp.new_seed(), totp.new_recovery_codes()
    with common.changing(arguments) as change:
        credentials.set_totp(change, arguments.name, seed, 0, codes)
        uri = totp.uri(seed, arguments.name, endpoint.find(change.connection).host)
    if arguments.json:
        made = {"name": arguments.name, "uri": uri, "secret": totp.text(seed), "recovery_codes": codes}
        print(json.dumps(made, indent=2))
        return 0
    qr_code(uri, show=True)
    print(f"Or type this into the app: {totp.text(seed)}\n\nRecovery codes, each good once, if the app is lost:")
    print(*codes, sep="\n")
    return 0


def _reset(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import credentials, links, logins, users

    with common.changing(arguments) as change:
        user = users.find(change.connection, arguments.name)
        credentials.remove(change, user.name)
        links.forget(change, user.name)
        ended = logins.end_all(change, user.name)
    what = f"user {user.name} has nothing to sign in with now; `wgpy gateway user invite {user.name}` prints a link"
    return common.done(arguments, what, {"name": user.name, "signed_out": ended})
