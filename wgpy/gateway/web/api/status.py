"""How the gateway is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from wgpy.gateway.service import status as service
from wgpy.gateway.web.api.access import READ
from wgpy.gateway.web.api.models import Output
from wgpy.gateway.web.site import site_of

router: APIRouter = APIRouter()


class Status(Output):
    """Whether the gateway is healthy, and how many of what it has."""

    running: bool
    healthy: bool
    why_not: str
    warnings: list[str] = Field(description="What works and should yet be changed, such as a clock that is wrong.")
    endpoint: str
    interface: str
    interface_is_up: bool
    sessions: int
    users: int
    devices: int
    routes: int
    rules: int
    dropped: dict[str, int] = Field(description="Packets that the firewall dropped, by reason.")


@router.get("/status", response_model=Status, dependencies=[READ])
def status(request: Request) -> Any:
    """Whether the gateway is healthy, and how many of what it has."""
    return service.status(site_of(request).database)
