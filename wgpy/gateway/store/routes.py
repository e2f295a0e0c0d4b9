"""Routes in the database."""

from __future__ import annotations

from ipaddress import ip_network

from sqlalchemy import Connection, delete, insert, select, update

from wgpy.gateway.policy.destinations import Network
from wgpy.gateway.policy.routes import Route, check
from wgpy.gateway.store import endpoint, lookup
from wgpy.gateway.store.database import Change
from wgpy.gateway.store.schema import routes


def find_all(connection: Connection) -> list[Route]:
    """All routes, in the order of their networks."""
    found = [Route(network=ip_network(row.network), snat=row.snat) for row in connection.execute(select(routes))]
    return sorted(
        found, key=lambda route: (route.network.version, int(route.network.network_address), route.network.prefixlen)
    )


def add(change: Change, route: Route) -> None:
    """Add a route. Raises ConfigError if there is one, or it contains the endpoint or overlaps a pool."""
    if any(each.network == route.network for each in find_all(change.connection)):
        raise lookup.Conflict(f"route {route.network}: exists already; change that one")
    check(endpoint.find(change.connection), [route])
    change.connection.execute(insert(routes).values(network=str(route.network), snat=route.snat))
    change.record("route", str(route.network), None, route.json())


def find(connection: Connection, network: Network) -> Route:
    """The route to that network. Raises ConfigError if there is none."""
    known = {route.network: route for route in find_all(connection)}
    if network not in known:
        listed = ", ".join(map(str, known)) or "none"
        raise lookup.Missing(f"route {network}: there is none; the routes are: {listed}", str(network))
    return known[network]


def replace(change: Change, route: Route) -> None:
    """Change the source address that the network of a route sees. Raises ConfigError if there is no such route."""
    before = find(change.connection, route.network)
    changed = update(routes).where(routes.c.network == str(route.network)).values(snat=route.snat)
    change.connection.execute(changed)
    change.record("route", str(route.network), before.json(), route.json())


def remove(change: Change, network: Network) -> None:
    """Remove a route. Raises ConfigError if there is none."""
    before = find(change.connection, network)
    change.connection.execute(delete(routes).where(routes.c.network == str(network)))
    change.record("route", str(network), before.json(), None)
