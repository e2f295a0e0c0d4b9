"""`wgpy check`: list every problem of a configuration file."""

from __future__ import annotations

import argparse
import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from wgpy.cli.files import Source, read_source, untrusted_hooks
from wgpy.config import wgquick
from wgpy.config.services import Services
from wgpy.config.values import InterfaceConfig


def add(verbs: Any) -> None:
    """Add the command to the command line."""
    check = verbs.add_parser(
        "check",
        help="list every problem of a configuration file, and change nothing",
        description="Read a wg-quick file, or one for wireproxy, and print every problem with its line. The exit "
        "status is 1 if there are errors, and 0 if there are only warnings.",
    )
    check.add_argument("file", metavar="FILE", help="the file to check")
    check.add_argument("--json", action="store_true", help="as JSON: a list of problems")
    check.set_defaults(call=_check)


def _check(arguments: argparse.Namespace) -> int:
    path = Path(arguments.file)
    try:
        source = read_source(path)
        file = wgquick.parse(source.text, str(source.path))
        warnings = (
            *file.warnings,
            *_access(source, file),
            *_missing_key(file.config, str(source.path)),
            *_loops(file, source.services, str(source.path)),
            *_for_proxy(source.services, str(path)),
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


def _access(source: Source, file: wgquick.WgQuickFile) -> list[wgquick.Problem]:
    """What `up` says about who may read and write the file."""
    hooks = untrusted_hooks(source.path, file, source.status)
    found = [*source.exposed, *([f"{hooks}; until then `up` refuses it"] if hooks else [])]
    return [wgquick.Problem(str(source.path), 1, "", message) for message in found]


def _missing_key(config: InterfaceConfig, filename: str) -> list[wgquick.Problem]:
    """Warn of a missing key. `up` does not, because hooks, or someone who calls `wg`, may set it."""
    if config.private_key or any("private-key" in hook for hook in config.pre_up + config.post_up):
        return []
    return [wgquick.Problem(filename, 1, "PrivateKey", "missing; no peer can be reached until `wg set` sets one")]


def _loops(file: wgquick.WgQuickFile, served: Services, filename: str) -> list[wgquick.Problem]:
    """Warn of endpoints that `up` would route into the tunnel itself. (`up` asks the kernel, which knows all routes.)

    0.0.0.0/0 is exempt: its policy rules except the tunnel's own datagrams. Its two halves have no such rules.
    """
    config = file.config
    if served != Services() or config.fwmark or config.table not in ("auto", "main"):
        return []
    networks = [network for peer in config.peers for network in peer.allowed_ips if network.prefixlen]
    hooks = " ".join(config.pre_up + config.post_up)  # they may add a route to the endpoint
    found = []
    for block in file.blocks[1:]:
        endpoint = block.values.get("endpoint")
        if endpoint is None or endpoint.is_host_name or "%" in endpoint.host or endpoint.host in hooks:
            continue
        address = ip_address(endpoint.host)
        if around := [network for network in networks if network.version == address.version and address in network]:
            what = f"is within {max(around, key=lambda network: network.prefixlen)} of AllowedIPs"
            so = "without a more specific route, datagrams to it would enter the tunnel again"
            remedy = "for all traffic use 0.0.0.0/0, ::/0; otherwise set FwMark and add a rule"
            found.append(wgquick.Problem(filename, block.lines["Endpoint"][-1], "Endpoint", f"{what}: {so}; {remedy}"))
    return found


def _for_proxy(served: Services, filename: str) -> list[wgquick.Problem]:
    """Say that the file is for other commands than `up`."""
    if served == Services():
        return []
    message = "a file for wireproxy, `wgpy proxy` and `wgpy forward`; `up` and wg-quick refuse it"
    return [wgquick.Problem(filename, 1, "", message)]
