"""Tokens. They are made and removed at the gateway itself: a token that could make others would outlive its removal."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from wgpy.gateway.policy import tokens as policy
from wgpy.gateway.store import tokens
from wgpy.gateway.web.api.access import READ, WRITE, changing, reading, require_here
from wgpy.gateway.web.api.models import Input, Moment, Output, expiry
from wgpy.gateway.web.site import site_of

router: APIRouter = APIRouter()


class Token(Output):
    """What a program proves with that it may use the API."""

    name: str
    scopes: list[str]
    made_at: float
    expires: float | None
    used_at: float | None = Field(description="When it was last used, to the minute; null for never.")


class NewToken(Input):
    """A token to make."""

    name: str
    scopes: list[str] = Field(description="; ".join(f"{scope}: {what}" for scope, what in policy.SCOPES.items()) + ".")
    expires: Moment | str | None = None


class Made(Token):
    """A token that was just made."""

    token: str = Field(description="What to send. It cannot be found again.")


@router.get("/tokens", response_model=list[Token], dependencies=[READ])
def find_all(request: Request) -> Any:
    """All tokens, by name, without their text."""
    with reading(request) as connection:
        return [token.json() for token in tokens.find_all(connection)]


@router.post("/tokens", response_model=Made, status_code=201, dependencies=[WRITE])
def add(request: Request, body: NewToken) -> Any:
    """Make a token. Only at the unix socket."""
    require_here(request, "token")
    now = site_of(request).wall()
    token = policy.Token(name=body.name, scopes=frozenset(body.scopes), made_at=now, expires=expiry(body.expires))
    with changing(request) as change:
        text = tokens.add(change, token)
    return {**token.json(), "token": text}


@router.delete("/tokens/{name}", status_code=204, dependencies=[WRITE])
def remove(request: Request, name: str) -> None:
    """Remove a token: it is of no use from now on. Only at the unix socket."""
    require_here(request, "token")
    with changing(request) as change:
        tokens.remove(change, name)
