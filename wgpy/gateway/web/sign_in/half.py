"""Who has typed the right password, and has still to prove the second factor: a sealed cookie for a few minutes."""

from __future__ import annotations

from typing import Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from wgpy.gateway.identity import tickets
from wgpy.gateway.policy.people import LOCAL, User
from wgpy.gateway.store import credentials, users
from wgpy.gateway.store.database import Change
from wgpy.gateway.web import cookies, logins
from wgpy.gateway.web.pages import redirect
from wgpy.gateway.web.site import site_of

COOKIE: Final = "__Host-wgpy-half"
LIFETIME: Final = 10 * 60  # seconds: an app has to be installed, and its code typed
_PURPOSE: Final = "prove the second factor"


class Half(NamedTuple):
    """What was proved."""

    user: str
    strength: str
    then: str
    """The path to go on to."""


def go_on(request: Request, user: User, strength: str, then: str) -> Response:
    """Have the browser go on to the second factor: to prove it, or to set one up, whichever the user has to."""
    site = site_of(request)
    with site.database.read() as connection:
        path = "/sign-in/second" if credentials.has_second_factor(connection, user.name) else "/sign-in/enrol"
    values = {"user": user.name, "strength": strength, "then": then, "origin": [user.source, user.subject]}
    response = redirect(path)
    ticket = tickets.issue(site.database.vault, _PURPOSE, site.wall(), **values)
    cookies.keep(response, COOKIE, ticket, LIFETIME, strict=True)
    return response


def require(request: Request) -> Half:
    """What this browser has proved. Raises HTTPException, which leads to the sign-in page, if it is nothing (any more).

    A password that was changed or forgotten meanwhile proves nothing, nor does that of a former user of the same name.
    """
    site = site_of(request)
    text = request.cookies.get(COOKIE, "")
    ticket = tickets.read(site.database.vault, _PURPOSE, text, site.wall(), LIFETIME)
    if ticket:
        source, subject = ticket.values.pop("origin")
        half = Half(**ticket.values)
        with site.database.read() as connection:
            is_same = users.origin(connection, half.user) == (source, subject)
            found = credentials.find(connection, half.user)
        if is_same and (source != LOCAL or (found and found.password and found.changed_at <= ticket.issued_at)):
            return half
    raise HTTPException(303, "sign in first", {"Location": logins.SIGN_IN})


def complete(change: Change, request: Request, half: Half, proof: str) -> tuple[str, str]:
    """Sign the user in who has proved the second factor as well; as `wgpy.gateway.web.logins.admit`."""
    return logins.admit(change, request, users.find(change.connection, half.user), f"{half.strength}, {proof}")


def finish(response: Response, cookie: str) -> Response:
    """Have the browser keep the cookie of the sign-in, and forget the half one."""
    cookies.forget(response, COOKIE)
    return logins.keep(response, cookie)
