"""`wgpy genkey`, `genpsk` and `pubkey`, like those of `wg`."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from typing import Any

from wgpy.errors import KeyFormatError
from wgpy.keys import PresharedKey, PrivateKey


def add(verbs: Any) -> None:
    """Add the commands to the command line."""
    for name, call, text in (
        ("genkey", _genkey, "print a new private key in base64"),
        ("genpsk", _genpsk, "print a new preshared key in base64"),
        ("pubkey", _pubkey, "print the public key of the private key on standard input"),
    ):
        verb = verbs.add_parser(name, help=text, description=f"{text.capitalize()}.")
        verb.set_defaults(call=call)


def _genkey(_: argparse.Namespace) -> int:
    return _print_secret(PrivateKey.generate().base64())


def _genpsk(_: argparse.Namespace) -> int:
    return _print_secret(PresharedKey.generate().base64())


def _pubkey(_: argparse.Namespace) -> int:
    try:
        key = PrivateKey.from_base64(sys.stdin.read(1024).rstrip())
    except (KeyFormatError, UnicodeDecodeError):
        raise KeyFormatError(
            "standard input is not a private key: expected the 44 base64 characters that genkey prints"
        ) from None
    print(key.public_key.base64())
    return 0


def _print_secret(text: str) -> int:
    mode = os.fstat(sys.stdout.fileno()).st_mode
    if stat.S_ISREG(mode) and mode & 0o007:
        print(
            "Warning: writing to world accessible file.\nConsider setting the umask to 077 and trying again.",
            file=sys.stderr,
        )
    print(text)
    return 0
