"""The web session of a person: who has sent a request, and how somebody is signed in and out.

Handlers ask `require_login`, `require_fresh` or `require_admin`, which send a browser to the sign-in page if need be.
What proves who somebody is calls `begin`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from wgpy.errors import ControlError
from wgpy.gateway.policy.logins import LIFETIME, Login
from wgpy.gateway.policy.people import LOCAL, Person, User
from wgpy.gateway.store import devices, directories, endpoint, logins, users
from wgpy.gateway.store.database import Change
from wgpy.gateway.web import cookies
from wgpy.gateway.web.pages import redirect
from wgpy.gateway.web.security import COOKIE
from wgpy.gateway.web.site import address_of, site_of

SIGN_IN: Final = "/sign-in"


def current_login(request: Request) -> Login | None:
    """The sign-in of the browser that has sent this request; None if it has none that is good now."""
    if not hasattr(request.state, "login"):
        request.state.login, request.state.person = _find(request) or (None, None)
    found: Login | None = request.state.login
    return found


def require_login(request: Request) -> Login:
    """The sign-in of the browser that has sent this request. Raises HTTPException, which leads to the sign-in page."""
    if (login := current_login(request)) is None:
        raise _to_sign_in(request)
    return login


def require_fresh(request: Request) -> Login:
    """As `require_login`, for who changes how they sign in: it must be a few minutes since they proved who they are."""
    login = require_login(request)
    if not login.is_fresh(site_of(request).wall()):
        raise _to_sign_in(request)
    return login


def require_admin(request: Request) -> User:
    """The administrator who has sent this request. Raises HTTPException for anybody else."""
    require_login(request)
    if not request.state.is_admin:
        raise HTTPException(403, "only administrators may see this page")
    user: User = request.state.person
    return user


def begin(request: Request, person: Person, strength: str, then: str = "/", token: bytes | None = b"") -> Response:
    """Sign in somebody who has just proved who they are, and lead the browser to the path `then`, of this site only.

    `strength` says what was proved, for the audit log; `token` is what the person's directory needs to be asked again,
    or None if it cannot be.
    If the request comes from a device of the person, the device is signed in, too. Raises HTTPException for somebody
    who may not come in, and WgpyError.
    """
    with site_of(request).database.change(f"user {person.name}") as change:
        user = take_in(change, person, token)
        cookie, said = admit(change, request, user, strength)
    return keep(redirect(local_path(then), said), cookie)


def take_in(change: Change, person: Person, token: bytes | None = b"") -> User:
    """The user who a person is that has just proved it. Raises HTTPException for somebody who may not come in."""
    user = users.take_in(change, person)
    check_allowed(user, change.now)
    if person.source != LOCAL:
        directories.confirm(change, user.name, token)
    return user


def admit(change: Change, request: Request, user: User, strength: str) -> tuple[str, str]:
    """Sign a user in. Returns the value of the cookie, which `keep` takes, and what to say of the user's device."""
    address = address_of(request)
    check_allowed(user, change.now)
    end(change, request)  # the browser's former cookie is good for nothing now, whoever has planted it
    cookie = logins.add(change, user.name, strength, str(address or "this host"))
    device = devices.at(change.connection, address) if address else None
    if device is None or device.user != user.name:
        return cookie, ""
    devices.sign_in(change, device.name)
    return cookie, f"{device.name} is signed in."


def keep(response: Response, cookie: str) -> Response:
    """Have the browser keep the cookie of a sign-in."""
    cookies.keep(response, COOKIE, cookie, LIFETIME)
    return response


def end(change: Change, request: Request) -> None:
    """Sign this browser out."""
    if cookie := request.cookies.get(COOKIE, ""):
        logins.forget(change, cookie)


def check_allowed(user: User, wall: float) -> None:
    """Raises HTTPException for somebody who may not come in now. They have proved who they are, so they may know."""
    if not user.is_allowed:
        raise HTTPException(403, f"{user.name} is disabled; ask an administrator")
    if user.is_expired(wall):
        raise HTTPException(403, f"the access of {user.name} has expired; ask an administrator")


def local_path(text: str) -> str:
    """A path of this site to go on to, or "/" if the text is not one: it may be anything that a link has.

    Browsers take `//host` and `/\\\\host` for other sites, and leave tabs and line ends out
    (https://url.spec.whatwg.org/#url-parsing).
    """
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isascii() and text.isprintable()
    return text if is_ours else "/"


def _find(request: Request) -> tuple[Login, User] | None:
    site, cookie = site_of(request), request.cookies.get(COOKIE, "")
    request.state.user, request.state.is_admin = None, False
    if not cookie:
        return None
    wall = site.wall()
    with site.database.read() as connection:
        login = logins.find(connection, cookie, wall)
        if login is None:
            return None
        user = users.find(connection, login.user)
        if not user.is_allowed or user.is_expired(wall):
            return None
        request.state.is_admin = endpoint.find(connection).admin_group in user.groups
    request.state.user = user.name
    if login.is_seen_late(wall) and not getattr(request.state, "unattended", False):
        with suppress(ControlError), site.database.change(f"user {user.name}") as change:  # then the next request does
            logins.seen(change, login)
    return login, user


def _to_sign_in(request: Request) -> HTTPException:
    """What leads to the sign-in page, and from there back, if this request was for a page."""
    here = request.url.path if request.method == "GET" else "/"
    return HTTPException(303, "sign in first", {"Location": f"{SIGN_IN}?next={quote(here)}"})
