"""The endpoint's settings."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import Field

from wgpy.gateway.policy import texts
from wgpy.gateway.service import settings
from wgpy.gateway.store import endpoint
from wgpy.gateway.web.api.access import READ, WRITE, changing, reading, require_here
from wgpy.gateway.web.api.models import Input, Output

router: APIRouter = APIRouter()

# What runs on the gateway's host, who is an administrator, and how people prove who they are.
_HERE: Final = {"handler", "handler_user", "url", "admin_group", "second_factor", "sign_in"}


class Endpoint(Output):
    """The settings."""

    interface: str = Field(description="The WireGuard interface.")
    host: str = Field(description="The name or address that clients connect to.")
    port: int = Field(description="The UDP port.")
    pools: list[str] = Field(description="Where clients' addresses come from.")
    dns: list[str] = Field(description="Name servers for clients.")
    search: list[str] = Field(description="Search domains for clients.")
    full_tunnel: bool = Field(description="Whether clients send everything through the tunnel.")
    mtu: int | None = Field(description="The MTU of the tunnel; null leaves it to both sides.")
    banner: str = Field(description="A text for the top of clients' files.")
    session_max: int = Field(description="Seconds until a session ends.")
    idle_max: int = Field(description="Seconds without a packet until a session ends; 0 for no limit.")
    sign_in: bool = Field(description="Whether a device's key is not enough, and its user has to sign in.")
    handler: str = Field(description="What is asked before each session: a program, or MODULE:FUNCTION.")
    handler_user: str = Field(description="The user of the gateway's host that a program runs as.")
    flow_log: bool = Field(description="Whether connections that pass, and packets that are denied, are logged.")
    data_plane: str = Field(description="Whose WireGuard carries the packets: auto, kernel or wgpy.")
    url: str = Field(description="Where browsers and programs find the gateway, such as https://vpn.example.org.")
    admin_group: str = Field(description="The group whose members may use the console.")
    second_factor: bool = Field(description="Whether a local user's password alone is not enough to sign in.")
    devices_max: int = Field(description="How many devices people may have that they add themselves.")


class EndpointChange(Input):
    """Settings to change."""

    interface: str = ""
    host: str = ""
    port: int = 0
    pools: list[str] = Field(default=[], examples=[["10.99.0.0/22", "fd00:99::/64"]])
    dns: list[str] = Field(default=[])
    search: list[str] = Field(default=[])
    full_tunnel: bool = False
    mtu: int | None = None
    banner: str = ""
    session_max: int = 0
    idle_max: int = 0
    sign_in: bool = Field(default=False, description="Only at the unix socket.")
    handler: str = Field(default="", description="Only at the unix socket.")
    handler_user: str = Field(default="", description="Only at the unix socket.")
    flow_log: bool = False
    data_plane: str = ""
    url: str = Field(default="", description="Only at the unix socket.")
    admin_group: str = Field(default="", description="Only at the unix socket.")
    second_factor: bool = Field(default=True, description="Only at the unix socket.")
    devices_max: int = 0

    @classmethod
    def lines(cls) -> tuple[str, ...]:
        return ("banner",)


@router.get("/endpoint", response_model=Endpoint, dependencies=[READ])
def show(request: Request) -> Any:
    """The settings."""
    with reading(request) as connection:
        return endpoint.find(connection).json()


@router.patch("/endpoint", response_model=Endpoint, dependencies=[WRITE])
def change(request: Request, body: EndpointChange) -> Any:
    """Change settings; sessions are held to them at once."""
    given = body.given()
    for name in sorted(_HERE & {*given}):
        require_here(request, name)
    for key, read in (("pools", texts.network), ("dns", texts.address)):
        if key in given:
            given[key] = tuple(read(key.removesuffix("s") if key == "pools" else key, text) for text in given[key])
    if "search" in given:
        given["search"] = tuple(given["search"])
    with changing(request) as changed:
        return settings.change(changed, given).json()
