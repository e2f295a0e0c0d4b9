"""`wgpy gateway endpoint`: the settings."""

from __future__ import annotations

import argparse
import pwd
from pathlib import Path
from typing import Any

from wgpy.errors import ConfigError
from wgpy.gateway.cli import common
from wgpy.gateway.policy import texts
from wgpy.gateway.policy.endpoint import DATA_PLANES


def add(objects: Any) -> None:
    actions = common.kind(objects, "endpoint", "show and change the endpoint's settings")
    common.command(actions, "show", "show the settings", _show)
    options(common.command(actions, "set", "change settings; sessions are held to them at once", _set))


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all settings."""
    parser.add_argument("--host", metavar="HOST", help="the name or address that clients connect to")
    parser.add_argument("--port", metavar="PORT", type=int, help="the UDP port (default: 51820)")
    parser.add_argument("--interface", metavar="NAME", help="the WireGuard interface (default: wg0)")
    parser.add_argument(
        "--pool",
        metavar="NETWORK",
        action="append",
        help="a network for clients' addresses, IPv4 or IPv6; may be repeated",
    )
    parser.add_argument("--dns", metavar="ADDRESS", action="append", help="a name server for clients; may be repeated")
    parser.add_argument(
        "--search", metavar="DOMAIN", action="append", help="a search domain for clients; may be repeated"
    )
    parser.add_argument(
        "--full-tunnel", action=argparse.BooleanOptionalAction, help="clients send everything through the tunnel"
    )
    parser.add_argument("--mtu", metavar="BYTES", type=int, help="the tunnel's MTU")
    parser.add_argument("--banner", metavar="FILE", type=Path, help="a text for the top of clients' files")
    parser.add_argument("--session-max", metavar="TIME", help="how long a session lasts (default: 24h)")
    parser.add_argument(
        "--idle-max", metavar="TIME", help="end sessions that are idle for so long; 0 for never (the default)"
    )
    parser.add_argument(
        "--sign-in",
        action=argparse.BooleanOptionalAction,
        help="people sign in with a browser before each session, because a device's key is not enough",
    )
    parser.add_argument(
        "--handler", metavar="PROGRAM", help="what is asked before each session: an absolute path, or MODULE:FUNCTION"
    )
    parser.add_argument(
        "--url", metavar="URL", help="where browsers find the gateway's pages and API, such as https://vpn.example.org"
    )
    parser.add_argument("--admin-group", metavar="GROUP", help="whose members may use the console (default: admins)")
    parser.add_argument(
        "--second-factor",
        action=argparse.BooleanOptionalAction,
        help="local users need a code of an app, or a passkey, beside their password (default: yes)",
    )
    parser.add_argument(
        "--handler-user", metavar="USER", help="run the handler as this user of the host, and not as root"
    )
    parser.add_argument(
        "--flow-log",
        action=argparse.BooleanOptionalAction,
        help="log connections and denied packets to the file of `wgpy gateway run --flow-log`",
    )
    parser.add_argument(
        "--devices-max", metavar="NUMBER", type=int,
        help="how many devices people may have who add them in the portal (default: 10)",
    )  # fmt: skip
    parser.add_argument("--data-plane", choices=DATA_PLANES, help="whose WireGuard carries the packets (default: auto)")


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, as fields of an Endpoint. Raises ConfigError."""
    given: dict[str, Any] = {
        key: value
        for key in (
            "host", "port", "interface", "full_tunnel", "mtu", "sign_in", "handler", "handler_user", "flow_log",
            "data_plane", "url", "admin_group", "second_factor", "devices_max",
        )
        if (value := getattr(arguments, key)) is not None
    }  # fmt: skip
    if arguments.handler_user:
        try:
            pwd.getpwnam(arguments.handler_user)
        except KeyError:
            raise ConfigError(f"handler user {arguments.handler_user!a}: this host has no such user") from None
    if arguments.pool is not None:
        given["pools"] = tuple(texts.network("pool", text) for text in arguments.pool)
    if arguments.dns is not None:
        given["dns"] = tuple(texts.address("dns", text) for text in arguments.dns)
    if arguments.search is not None:
        given["search"] = tuple(arguments.search)
    if arguments.banner is not None:
        try:
            given["banner"] = arguments.banner.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{arguments.banner}: {getattr(error, 'strerror', None) or 'not a text in UTF-8'}"
            ) from error
    for key in ("session_max", "idle_max"):
        if (text := getattr(arguments, key)) is not None:
            given[key] = texts.duration(text)
    return given


def _show(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import endpoint

    with common.reading(arguments) as connection:
        values = endpoint.find(connection).json()
    return common.show_one(arguments, values)


def _set(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.service import settings as service

    given = settings(arguments)
    if not given:
        raise ConfigError("endpoint set: nothing to change; `wgpy gateway endpoint set -h` lists the settings")
    with common.changing(arguments) as change:
        changed = service.change(change, given)
    return common.done(arguments, f"changed: {', '.join(given)}", changed.json())
