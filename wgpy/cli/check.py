"""`wgpy check`: every problem of a configuration file."""

from __future__ import annotations

import argparse
import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from wgpy.cli.files import read_served
from wgpy.config import wgquick
from wgpy.config.services import Services
from wgpy.config.values import InterfaceConfig


def add(verbs: Any) -> None:
    """Add the command to the command line."""
    check = verbs.add_parser(
        "check",
        help="every problem of a configuration file, without touching anything",
        description="Read a wg-quick file, or one of wireproxy's, and say every problem with its line. Exit status 1 "
        "if there is any error; warnings alone are 0.",
    )
    check.add_argument("file", metavar="FILE", help="the file to check")
    check.add_argument("--json", action="store_true", help="as JSON: a list of problems")
    check.set_defaults(call=_check)


def _check(arguments: argparse.Namespace) -> int:
    path = Path(arguments.file)
    try:
        source, text, served = read_served(path)
        file = wgquick.parse(text, str(source))
        warnings = (
            *file.warnings,
            *_missing_key(file.config, str(source)),
            *_doubts(file, served, str(source)),
            *_for_proxy(served, str(path)),
        )
        errors: tuple[wgquick.Problem, ...] = ()
    except wgquick.ConfigFileError as error:
        warnings, errors = (), error.problems
    if arguments.json:
        found = [("error", p) for p in errors] + [("warning", p) for p in warnings]
        print(
            json.dumps(
                [
                    {"severity": severity, "file": p.filename, "line": p.line, "key": p.key, "message": p.message}
                    for severity, p in found
                ],
                indent=2,
            )
        )
    else:
        for problem in errors:
            print(problem)
        for problem in warnings:
            print(f"{problem} (warning)")
        if not errors:
            print(f"{path}: ok")
    return 1 if errors else 0


def _missing_key(config: InterfaceConfig, filename: str) -> list[wgquick.Problem]:
    """A doubt that `up` need not repeat: hooks, and whoever calls `wg`, may set the key."""
    if config.private_key or any("private-key" in hook for hook in config.pre_up + config.post_up):
        return []
    return [wgquick.Problem(filename, 1, "PrivateKey", "missing; no peer can be reached until `wg set` gives one")]


def _doubts(file: wgquick.WgQuickFile, served: Services, filename: str) -> list[wgquick.Problem]:
    """Endpoints that `up` would route into the tunnel itself; `up` asks the kernel, which knows all other routes, too.

    0.0.0.0/0 is routed by rules that let the tunnel's own datagrams pass; its halves, as any other network, are not.
    """
    config = file.config
    if served != Services() or config.fwmark or config.table not in ("auto", "main"):
        return []
    networks = [network for peer in config.peers for network in peer.allowed_ips if network.prefixlen]
    hooks = " ".join(config.pre_up + config.post_up)  # which may add a route of the endpoint's own
    found = []
    for block in file.blocks[1:]:
        endpoint = block.values.get("endpoint")
        if endpoint is None or endpoint.is_host_name or "%" in endpoint.host or endpoint.host in hooks:
            continue
        address = ip_address(endpoint.host)
        if around := [network for network in networks if network.version == address.version and address in network]:
            what = f"lies within {max(around, key=lambda network: network.prefixlen)} of AllowedIPs"
            so = "unless a more specific route leads to it, what is sent there enters the tunnel again"
            remedy = "for all traffic give 0.0.0.0/0, ::/0; else set FwMark and a rule for it"
            found.append(wgquick.Problem(filename, block.lines["Endpoint"][-1], "Endpoint", f"{what}: {so}; {remedy}"))
    return found


def _for_proxy(served: Services, filename: str) -> list[wgquick.Problem]:
    """A doubt about who will read the file."""
    if served == Services():
        return []
    doubt = "wireproxy's, for `wgpy proxy` and `forward`: `up` and wg-quick refuse it"
    return [wgquick.Problem(filename, 1, "", doubt)]
