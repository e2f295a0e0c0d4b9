"""What a browser that is away at a provider of OpenID Connect has to bring back: a sealed cookie for a few minutes."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from wgpy.gateway.identity import tickets
from wgpy.gateway.identity.oidc.provider import PATIENCE
from wgpy.gateway.store import directories, users
from wgpy.gateway.web import cookies
from wgpy.gateway.web.site import site_of

R = TypeVar("R", bound=Response)

COOKIE: Final = "__Host-wgpy-away"
BACK: Final = "come back from a provider"
OUT: Final = "sign out at a provider"


def keep(request: Request, response: Response, purpose: str, **values: Any) -> None:
    """Have the browser keep these values."""
    site = site_of(request)
    ticket = tickets.issue(site.database.vault, purpose, site.wall(), **values)
    cookies.keep(response, COOKIE, ticket, int(PATIENCE))


def read(request: Request, purpose: str) -> dict[str, Any] | None:
    """What this browser has kept for the purpose; None if that is nothing (any more)."""
    site = site_of(request)
    ticket = tickets.read(site.database.vault, purpose, request.cookies.get(COOKIE, ""), site.wall(), PATIENCE)
    return ticket.values if ticket else None


def forget(response: R) -> R:
    """Have the browser forget what it has kept."""
    cookies.forget(response, COOKIE)
    return response


def remember_for_sign_out(request: Request, response: Response, user: str) -> None:
    """Let the browser of a user who has just signed out of this site sign out at the user's provider as well."""
    with site_of(request).database.read() as connection:
        source = users.find(connection, user).source
        if any(each.name == source and each.kind == "oidc" for each in directories.find_all(connection)):
            keep(request, response, OUT, user=user, source=source)


def signed_out_of(request: Request) -> str:
    """Where the person who has just signed out of this site may still be signed in; empty if nowhere."""
    brought = read(request, OUT)
    return brought["source"] if brought else ""
