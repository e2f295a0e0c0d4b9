"""`wgpy gateway enrol`: run where the device is, not where the gateway is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(objects: Any) -> None:
    made = objects.add_parser(
        "enrol",
        help="enrol this device at a gateway by a client certificate, or sign it in again",
        description="Enrol this device at a gateway by a client certificate, and write its file. If the file is there "
        "already, the device in it is signed in again: its next session may begin.",
        epilog="Example: wgpy gateway enrol https://vpn.example.org --certificate alice.pem --certificate-key "
        "alice.key --name alice-laptop --output /etc/wireguard/wg0.conf",
    )
    made.add_argument("url", metavar="URL", help="the gateway's address")
    made.add_argument(
        "--certificate", metavar="FILE", type=Path, required=True, help="the certificate (PEM), with intermediate ones"
    )
    made.add_argument("--certificate-key", metavar="FILE", type=Path, required=True, help="its private key (PEM)")
    made.add_argument("--name", metavar="NAME", required=True, help="a name for the device")
    made.add_argument("--output", metavar="FILE", type=Path, help="the device's file (default: NAME.conf here)")
    made.add_argument(
        "--ca", metavar="FILE", type=Path, help="trust these certificates (PEM) for the gateway instead of the system's"
    )
    made.set_defaults(call=_enrol)


def _enrol(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.cli.enrolling import enrol

    return enrol(arguments)
