"""`wgpy client`: manage the clients of a gateway in its wg-quick file, and in the running interface."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from wgpy import control
from wgpy.cli.files import CONFIG_HELP, checked, load, locate
from wgpy.config import clients
from wgpy.config.values import EndpointName
from wgpy.config.wgquick import WgQuickFile, parse, read_value
from wgpy.daemon.files import HeldFile, changing, new_file, read_text
from wgpy.daemon.qr import qr_code
from wgpy.errors import ConfigError, ControlError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey


def add(verbs: Any) -> None:
    """Add the command to the command line."""
    client = verbs.add_parser(
        "client",
        help="add, list, remove, enable or disable the clients of a gateway",
        description="Manage the clients of a gateway, which are peers in its own file; the rest of the file stays as "
        "it is. `add` makes keys, picks the first free address of the pool, and writes the client's file, NAME.conf, "
        "with mode 0600. If the interface is up, it is changed at once, and the sessions of other clients go on.",
        epilog="Example: wgpy client add alice --config wg0 --endpoint vpn.example.org --full --qr",
    )
    client.add_argument(
        "action",
        metavar="ACTION",
        choices=["add", "list", "remove", "enable", "disable"],
        help="add: make keys, an address and a file for a new client; list: show all clients; remove: delete a client "
        "from the gateway's file; disable: refuse a client, but keep it in the file; enable: admit it again",
    )
    client.add_argument("name", metavar="NAME", nargs="?", help="the client's name, which its interface will have, too")
    client.add_argument("--config", metavar="CONFIG", required=True, help=CONFIG_HELP)
    client.add_argument("--json", action="store_true", help="print JSON")
    new = client.add_argument_group("with add")
    new.add_argument(
        "--endpoint",
        metavar="HOST[:PORT]",
        help="where clients reach the gateway; the default is a comment in its file: # Endpoint = HOST:PORT",
    )
    new.add_argument(
        "--pool",
        metavar="NETWORK",
        action="append",
        help="where to take addresses from (default: the interface's networks)",
    )
    new.add_argument("--full", action="store_true", help="route all of the client's traffic through the tunnel")
    new.add_argument(
        "--split", action="store_true", help="route only the pool and each --route through the tunnel (default)"
    )
    new.add_argument(
        "--route", metavar="NETWORK", action="append", help="a network behind the gateway, for the client to reach"
    )
    new.add_argument("--dns", metavar="ADDRESS", action="append", help="a name server for the client")
    new.add_argument("--output", metavar="FILE", help="the client's file (default: NAME.conf in this directory)")
    new.add_argument("--qr", action="store_true", help="show the file as a QR code, and write that to NAME.png")
    client.set_defaults(call=_client, wrong=client.error)


def _client(arguments: argparse.Namespace) -> int:
    if arguments.action == "list":
        if arguments.name:
            arguments.wrong("list takes no name")
        return _list(load(arguments.config)[1], as_json=arguments.json)
    if not arguments.name:
        arguments.wrong(f"{arguments.action} needs a name")
    if arguments.full and (arguments.split or arguments.route):
        arguments.wrong("--full cannot be used with --split or --route")
    interface, path = locate(arguments.config)
    with changing(path) as held:
        file = checked(path, *held.read())
        if arguments.action == "add":
            return _add(arguments, interface, file, held)
        change = {"remove": clients.remove, "enable": clients.enable, "disable": clients.disable}[arguments.action]
        changed = change(file, arguments.name)
        held.replace(str(changed))
        applied = _apply(interface, changed)
    report = {"name": arguments.name, "done": arguments.action, "applied": applied}
    if arguments.action == "remove":
        public_key = clients.find(file, arguments.name).peer.public_key
        report["files_left"] = list(map(str, _files_with_keys(arguments.name, public_key, path)))
    _report(arguments, report)
    return 0


def _files_with_keys(name: str, public_key: PublicKey, gateway: Path) -> list[Path]:
    """The files that `add` wrote for a client, if they are here or beside the gateway's file: they hold its keys."""
    found: list[Path] = []
    for path in {file.resolve(): file for file in (gateway.parent / f"{name}.conf", Path(f"{name}.conf"))}.values():
        try:
            key = parse(read_text(path)).config.private_key
        except ConfigError:
            continue
        if key is not None and key.public_key == public_key:
            found += filter(Path.exists, (path, path.with_suffix(".png")))
    return found


def _list(file: WgQuickFile, *, as_json: bool) -> int:
    found: list[dict[str, Any]] = [
        {
            "name": client.peer.name,
            "public_key": client.peer.public_key.base64(),
            "allowed_ips": list(map(str, client.peer.allowed_ips)),
            "enabled": client.enabled,
        }
        for client in clients.clients(file)
    ]
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    rows = [("NAME", "PUBLIC KEY", "STATE", "ALLOWED IPS")]
    for client in found:
        state = "enabled" if client["enabled"] else "disabled"
        rows.append((client["name"] or "-", client["public_key"], state, ", ".join(client["allowed_ips"])))
    for name, key, state, allowed_ips in rows:
        print(f"{name:15}  {key:44}  {state:8}  {allowed_ips}")
    return 0


def _add(arguments: argparse.Namespace, interface: str, file: WgQuickFile, held: HeldFile) -> int:
    key, psk = PrivateKey.generate(), PresharedKey.generate()
    pool = _networks("--pool", arguments.pool)
    changed, addresses = clients.add(file, arguments.name, key, psk, pool)
    own = [address.network for address in file.config.addresses]
    split = dict.fromkeys([*(pool or own), *_networks("--route", arguments.route)])
    networks = clients.EVERYTHING if arguments.full else tuple(split)
    text = str(
        clients.client_file(
            file.config, key, psk, addresses, _endpoint(arguments.endpoint, file), networks, _servers(arguments.dns)
        )
    )
    path = Path(arguments.output or f"{arguments.name}.conf")
    made = {path: text.encode()}
    if arguments.qr:
        made[path.with_suffix(".png")] = qr_code(text, show=not arguments.json)
    with ExitStack() as written:  # all of them or none
        for name, content in made.items():
            try:
                written.enter_context(new_file(name, content))
            except OSError as error:
                raise ConfigError(f"{name}: {error.strerror}; nothing was changed") from error
        held.replace(str(changed))
    applied = _apply(interface, changed)
    report = {
        "name": arguments.name,
        "public_key": key.public_key.base64(),
        "addresses": list(map(str, addresses)),
        "files": list(map(str, made)),
        "applied": applied,
    }
    _report(arguments, report)
    return 0


def _networks(option: str, texts: list[str] | None) -> list[clients.Network]:
    try:
        return [ip_network(text) for text in texts or ()]
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def _servers(texts: list[str] | None) -> list[str]:
    try:
        return [str(ip_address(text)) for text in texts or ()]
    except ValueError as error:
        raise ConfigError(f"--dns: {error}") from None


def _endpoint(given: str | None, file: WgQuickFile) -> EndpointName:
    """The endpoint from the command line, or from a comment in [Interface]; its port is ListenPort by default."""
    text = given or clients.endpoint_comment(file)
    if not text:
        raise ConfigError("clients need the gateway's endpoint: give --endpoint HOST:PORT, or add the comment "
                          "`# Endpoint = HOST:PORT` to [Interface]")  # fmt: skip
    has_port = text.rpartition(":")[2].isdigit() and (text.count(":") == 1 or "]:" in text)
    if not has_port and not file.config.listen_port:
        raise ConfigError(f"{text}: expected HOST:PORT, because the gateway's file has no ListenPort")
    endpoint: EndpointName = read_value("Endpoint", text if has_port else f"{text}:{file.config.listen_port}")
    return endpoint


def _apply(interface: str, file: WgQuickFile) -> bool:
    """Apply the changed file to the interface. Returns False if it is not up."""
    if not control.is_up(interface):
        return False
    _, error = control.apply(interface, str(file))
    if error:
        raise ControlError(f"{interface}: the file was changed, but the interface was not: {error}")
    return True


def _report(arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    done = {"add": "added", "remove": "removed", "enable": "enabled", "disable": "disabled"}[arguments.action]
    now = "and applied" if report["applied"] else "in the file; the interface is not up"
    print(f"{arguments.name}: {done} {now}", file=sys.stderr)
    for path in report.get("files", ()):
        print(path)
    for path in report.get("files_left", ()):
        print(f"{path} still holds keys of {arguments.name}: delete it if it is no longer needed", file=sys.stderr)
