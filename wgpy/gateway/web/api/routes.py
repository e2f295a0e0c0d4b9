"""Routes: the networks behind the gateway."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from wgpy.gateway.policy import texts
from wgpy.gateway.policy.routes import MASQUERADE
from wgpy.gateway.policy.routes import Route as Value
from wgpy.gateway.store import routes
from wgpy.gateway.web.api.access import READ, WRITE, changing, reading
from wgpy.gateway.web.api.models import Input, Output

router: APIRouter = APIRouter()


class Route(Output):
    """A network behind the gateway."""

    network: str
    snat: str = Field(description="The source address that the network sees: masquerade, none or an address.")


class NewRoute(Input):
    """A route to add."""

    network: str = Field(examples=["10.50.0.0/16"])
    snat: str = MASQUERADE


class RouteChange(Input):
    """What to change of a route."""

    snat: str


@router.get("/routes", response_model=list[Route], dependencies=[READ])
def find_all(request: Request) -> Any:
    """All routes."""
    with reading(request) as connection:
        return [route.json() for route in routes.find_all(connection)]


@router.post("/routes", response_model=Route, status_code=201, dependencies=[WRITE])
def add(request: Request, body: NewRoute) -> Any:
    """Add a route, which the files of new devices have."""
    route = Value(network=texts.network("route", body.network), snat=body.snat)
    with changing(request) as change:
        routes.add(change, route)
    return route.json()


@router.get("/routes/{network:path}", response_model=Route, dependencies=[READ])
def find(request: Request, network: str) -> Any:
    """The route to a network, such as /routes/10.50.0.0/16."""
    with reading(request) as connection:
        return routes.find(connection, texts.network("route", network)).json()


@router.patch("/routes/{network:path}", response_model=Route, dependencies=[WRITE])
def change(request: Request, network: str, body: RouteChange) -> Any:
    """Change the source address that a network sees."""
    route = Value(network=texts.network("route", network), snat=body.snat)
    with changing(request) as changed:
        routes.replace(changed, route)
    return route.json()


@router.delete("/routes/{network:path}", status_code=204, dependencies=[WRITE])
def remove(request: Request, network: str) -> None:
    """Remove a route."""
    with changing(request) as change:
        routes.remove(change, texts.network("route", network))
