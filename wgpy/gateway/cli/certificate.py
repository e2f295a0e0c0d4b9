"""`wgpy gateway certificate`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from wgpy.daemon.files import read_text
from wgpy.gateway.cli import common
from wgpy.gateway.policy import texts
from wgpy.gateway.policy.certificates import NameFrom


def add(objects: Any) -> None:
    actions = common.kind(
        objects, "certificate", "accept client certificates of an authority, and see which devices have one"
    )
    made = common.command(
        actions,
        "set",
        "accept client certificates of this authority",
        _set,
        epilog="With a certificate, a person or a machine enrols a device by `wgpy gateway enrol`. Example: wgpy "
        "gateway certificate set --ca corp-ca.pem --crl /etc/wgpy/corp.crl --name-from email",
    )
    made.add_argument("--ca", metavar="FILE", type=Path, help="its certificates (PEM): the root, and intermediate ones")
    lists = made.add_mutually_exclusive_group()
    lists.add_argument(
        "--crl", metavar="FILE", help="its lists of revoked certificates, reread when the file changes; `none` for none"
    )
    lists.add_argument(
        "--crl-copy", metavar="FILE", type=Path,
        help="its lists of revoked certificates, copied into the database, from which all gateways have them",
    )  # fmt: skip
    made.add_argument(
        "--name-from", metavar="NAME", choices=[*NameFrom],
        help="what names the user: cn, the common name (default); email or upn, of subjectAltName",
    )  # fmt: skip
    common.command(actions, "unset", "accept no certificates any more; the sessions of devices with one end", _unset)
    common.command(actions, "show", "show which certificates are accepted", _show)
    common.command(actions, "list", "list the certificates that devices are bound to", _list)
    made = common.command(actions, "unbind", "let a device do without its certificate", _unbind)
    made.add_argument("name", metavar="DEVICE", help="the device's name")


def _set(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.identity.administration import change_authority
    from wgpy.gateway.identity.certificates import lists_in_pem

    given: dict[str, Any] = {}
    if arguments.ca is not None:
        given["ca"] = read_text(arguments.ca)
    if arguments.crl is not None:
        given["crl"] = "" if arguments.crl == "none" else arguments.crl
    if arguments.crl_copy is not None:
        given["crl"] = lists_in_pem(arguments.crl_copy)
    if arguments.name_from is not None:
        given["name_from"] = NameFrom(arguments.name_from)
    with common.changing(arguments) as change:
        authority = change_authority(change, given)
    return common.done(arguments, "client certificates of this authority are accepted", authority.json())


def _unset(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import certificates

    with common.changing(arguments) as change:
        certificates.set_authority(change, None)
    return common.done(arguments, "no client certificates are accepted any more", {})


def _show(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.identity.certificates import facts, read_lists
    from wgpy.gateway.store import certificates

    with common.reading(arguments) as connection:
        authority = certificates.accepted(connection)
    if arguments.json:
        return common.show_one(arguments, authority.json())
    source = authority.crl if authority.has_file else "in the database" if authority.crl else "none"
    common.show_one(arguments, {"name_from": authority.name_from.value, "crl": source})
    rows = [
        {
            "subject": each.subject, "fingerprint": each.fingerprint, "expires": texts.moment(each.expires),
            "revoked": "-" if each.revoked is None else each.revoked, "next_update": texts.moment(each.next_update),
            "state": each.refusal or "accepted",
        }
        for each in facts(authority.ca, read_lists(authority), time.time())
    ]  # fmt: skip
    columns = {
        "subject": "SUBJECT", "expires": "EXPIRES", "revoked": "REVOKED", "next_update": "NEXT LIST BY",
        "state": "STATE", "fingerprint": "SHA-256",
    }  # fmt: skip
    return common.show(arguments, rows, columns)


def _list(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import certificates

    with common.reading(arguments) as connection:
        rows = [bound.json() for bound in certificates.find_all(connection)]
    if not arguments.json:
        rows = [
            {**row, "expires": texts.moment(row["expires"]), "refusal": row["refusal"] or "accepted"} for row in rows
        ]
    columns = {"device": "DEVICE", "subject": "SUBJECT", "serial": "SERIAL", "expires": "EXPIRES", "refusal": "STATE"}
    return common.show(arguments, rows, columns)


def _unbind(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import certificates

    with common.changing(arguments) as change:
        certificates.unbind(change, arguments.name)
    return common.done(arguments, f"device {arguments.name} has no certificate any more", {"name": arguments.name})
