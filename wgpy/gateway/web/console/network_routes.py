"""Routes: a list of the networks behind the gateway, and a page for each."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from wgpy.errors import WgpyError
from wgpy.gateway.policy.destinations import Network
from wgpy.gateway.policy.revision import revision
from wgpy.gateway.policy.routes import MASQUERADE, NONE, Route
from wgpy.gateway.policy.texts import network
from wgpy.gateway.store import audit, routes
from wgpy.gateway.web.console.visit import Visit, action, page, path_of


def _list(visit: Visit) -> Response:
    with visit.reading() as connection:
        found = routes.find_all(connection)
    return visit.show("routes.html", routes=found)


def _new(visit: Visit, error: WgpyError | None = None) -> Response:
    return visit.show("route_new.html", error, values=_typed(visit))


def _add(visit: Visit) -> Response:
    try:
        route = Route(network=network("route", visit.form.text("network")), snat=_snat(visit))
        with visit.changing() as change:
            routes.add(change, route)
    except WgpyError as error:
        return _new(visit, error)
    return visit.done("/routes", f"Route {route.network} added. The files of new devices have it.")


def _show(visit: Visit, error: WgpyError | None = None) -> Response:
    with visit.reading() as connection:
        route = routes.find(connection, _network(visit))
        history = audit.of(connection, "route", str(route.network))
    values = _typed(visit) if error else _written(route)
    return visit.show("route.html", error, route=route, history=history, values=values, revision=revision(route.json()))


def _change(visit: Visit) -> Response:
    try:
        with visit.changing() as change:
            before = routes.find(change.connection, _network(visit))
            visit.check_unchanged(change.connection, "route", str(before.network), before.json())
            routes.replace(change, Route(network=before.network, snat=_snat(visit)))
    except WgpyError as error:
        return _show(visit, error)
    return visit.done(path_of("routes", str(before.network)), f"Route {before.network} changed.")


def _remove(visit: Visit) -> Response:
    with visit.changing() as change:
        routes.remove(change, _network(visit))
    return visit.done("/routes", f"Route {_network(visit)} removed.")


def _network(visit: Visit) -> Network:
    return network("route", visit.name.replace("_", "/"))


def _snat(visit: Visit) -> str:
    kind = visit.form.text("snat")
    return visit.form.text("address") if kind == "address" else kind or MASQUERADE


def _written(route: Route) -> dict[str, Any]:
    is_address = route.snat not in (MASQUERADE, NONE)
    return {"snat": "address" if is_address else route.snat, "address": route.snat if is_address else ""}


def _typed(visit: Visit) -> dict[str, Any]:
    form = visit.form
    return {"network": form.text("network"), "snat": form.text("snat") or MASQUERADE, "address": form.text("address")}


ROUTES: Final = (
    page("/routes", _list),
    page("/add/route", _new),
    action("/add/route", _add),
    page("/routes/{name}", _show),
    action("/routes/{name}", _change),
    action("/routes/{name}/remove", _remove),
)
