"""`wgpy gateway route`."""

from __future__ import annotations

import argparse
from typing import Any

from wgpy.gateway.cli import common
from wgpy.gateway.policy import texts
from wgpy.gateway.policy.routes import MASQUERADE, Route


def add(objects: Any) -> None:
    actions = common.kind(objects, "route", "manage routes: the networks behind the gateway")
    for name, summary, call in (
        ("add", "add a route, which the files of new devices have", _add),
        ("set", "change which source address the network of a route sees", _set),
    ):
        made = common.command(actions, name, summary, call)
        made.add_argument("network", metavar="NETWORK", help="a network, such as 10.0.0.0/16")
        made.add_argument(
            "--snat",
            metavar="ADDRESS",
            default=MASQUERADE,
            help="the source address that the network sees: masquerade for the gateway's own there (default), an "
            "address, or none for the client's, which needs a route back",
        )
    common.command(actions, "list", "list all routes", _list)
    made = common.command(actions, "remove", "remove a route", _remove)
    made.add_argument("network", metavar="NETWORK", help="the network")


def _add(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import routes

    route = _given(arguments)
    with common.changing(arguments) as change:
        routes.add(change, route)
    return common.done(arguments, f"route {route.network} added", route.json())


def _set(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import routes

    route = _given(arguments)
    with common.changing(arguments) as change:
        routes.replace(change, route)
    return common.done(arguments, f"route {route.network} changed", route.json())


def _given(arguments: argparse.Namespace) -> Route:
    return Route(network=texts.network("route", arguments.network), snat=arguments.snat)


def _remove(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import routes

    network = texts.network("route", arguments.network)
    with common.changing(arguments) as change:
        routes.remove(change, network)
    return common.done(arguments, f"route {network} removed", {"network": str(network)})


def _list(arguments: argparse.Namespace) -> int:
    from wgpy.gateway.store import routes

    with common.reading(arguments) as connection:
        rows = [route.json() for route in routes.find_all(connection)]
    return common.show(arguments, rows, {"network": "NETWORK", "snat": "SNAT"})
