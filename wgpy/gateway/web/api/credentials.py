"""What users sign in with. That of administrators is changed only at the unix socket: a token could become one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from wgpy.gateway.identity import administration
from wgpy.gateway.store import credentials
from wgpy.gateway.web.api.access import CREDENTIALS, changing, keep_administrator, reading
from wgpy.gateway.web.api.models import Input, Output
from wgpy.gateway.web.site import site_of

router: APIRouter = APIRouter()


class NewPassword(Input):
    """A password."""

    password: str = Field(max_length=1024, repr=False)


class Invitation(Output):
    """A link with which a user chooses a password, once."""

    url: str = Field(description="It is as good as a password, and cannot be found again.")
    expires: float


class App(Output):
    """What sets up an authenticator app. It cannot be found again."""

    uri: str = Field(description="What a QR code for the app has.")
    secret: str = Field(description="What to type into the app in its place.")
    recovery_codes: list[str] = Field(description="Each good once, if the app is lost.")


class Reset(Output):
    """What was ended."""

    signed_out: int = Field(description="In how many browsers the user was signed in.")


@router.post("/users/{name}/password", status_code=204, dependencies=[CREDENTIALS])
def set_password(request: Request, name: str, body: NewPassword) -> None:
    """Set a local user's password, and sign the user out."""
    with reading(request) as connection:
        keep_administrator(request, connection, name)
        credentials.check_local(connection, name)
    encoded = administration.encode(site_of(request).hasher, name, body.password)
    with changing(request) as change:
        keep_administrator(request, change.connection, name)
        administration.set_password(change, name, encoded)


@router.post("/users/{name}/invite", response_model=Invitation, status_code=201, dependencies=[CREDENTIALS])
def invite(request: Request, name: str) -> Any:
    """Make a link with which a local user chooses a password, once, within 24 hours. It replaces the one before."""
    with changing(request) as change:
        keep_administrator(request, change.connection, name)
        return administration.invite(change, name).json()


@router.post("/users/{name}/totp", response_model=App, status_code=201, dependencies=[CREDENTIALS])
def set_up_app(request: Request, name: str) -> Any:
    """Give a user a new authenticator app and recovery codes."""
    with changing(request) as change:
        keep_administrator(request, change.connection, name)
        return administration.set_up_app(change, name).json()


@router.post("/users/{name}/reset", response_model=Reset, dependencies=[CREDENTIALS])
def reset(request: Request, name: str) -> Any:
    """Forget a user's password, authenticator app and passkeys, and sign the user out."""
    with changing(request) as change:
        keep_administrator(request, change.connection, name)
        return {"signed_out": administration.reset(change, name)}
