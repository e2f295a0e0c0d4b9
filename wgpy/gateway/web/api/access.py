"""Who may use the API: administrators at the unix socket, and programs that have a token."""

from __future__ import annotations

import pwd
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Security
from fastapi.security import HTTPBearer, SecurityScopes
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from wgpy.errors import WgpyError
from wgpy.gateway.policy.throttle import Limit, Throttle
from wgpy.gateway.policy.tokens import PREFIX, Token
from wgpy.gateway.store import tokens, users
from wgpy.gateway.store.database import Change
from wgpy.gateway.web.problems import problem
from wgpy.gateway.web.site import address_of, peer_of, site_of

BY_TOKEN: Final = Limit(256, 1.0)
BY_ADDRESS: Final = Limit(256, 1.0)  # requests at the same time; each with a wrong token takes one for a second
_SIZE: Final = 4096  # addresses
_TOKEN: Final = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]{43}")
_ASK: Final = {"WWW-Authenticate": 'Bearer realm="wgpy gateway"'}
_BEARER: Final = HTTPBearer(auto_error=False, description="A token of `wgpy gateway token add`.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has sent a request."""

    who: str
    """What the audit log calls them."""
    token: Token | None = None
    """What they have proved that with; None at the unix socket, where everything is allowed."""


class Access:
    """Lets requests through to `app` that are allowed, before anything of their bodies is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._throttle = Throttle(BY_TOKEN, BY_ADDRESS, _SIZE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope["state"]["caller"] = await self._caller(Request(scope))
        except HTTPException as error:
            await problem(error.status_code, error.detail, error.headers)(scope, receive, send)
        except WgpyError as error:
            await problem(503, str(error))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _caller(self, request: Request) -> Caller:
        if (uid := peer_of(request.scope)) is not None:
            return Caller(await run_in_threadpool(_user, uid))
        if PREFIX in request.url.query or "access_token" in request.query_params:
            raise HTTPException(
                400, "a token in an address ends up in logs: remove that one, and send `Authorization: Bearer TOKEN`"
            )
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not _TOKEN.fullmatch(text):
            raise HTTPException(401, "send a token of `wgpy gateway token add`: `Authorization: Bearer TOKEN`", _ASK)
        account, address = tokens.digest(text).hex(), address_of(request)
        if wait := self._throttle.attempt(account, address, time.monotonic()):
            raise HTTPException(429, "too many requests with wrong tokens", {"Retry-After": str(int(wait) + 1)})
        token = await run_in_threadpool(_find, request, text)
        if token is None:
            raise HTTPException(401, "this token is not valid: it was removed, or has expired", _ASK)
        self._throttle.succeeded(account, address, time.monotonic(), wholly=False)
        return Caller(f"token {token.name}", token)


def caller_of(request: Request) -> Caller:
    """Who has sent the request."""
    found: Caller = request.state.caller
    return found


@contextmanager
def reading(request: Request) -> Iterator[Connection]:
    """A connection to read from."""
    with site_of(request).database.read() as connection:
        yield connection


@contextmanager
def changing(request: Request) -> Iterator[Change]:
    """A transaction in the name of who has sent the request."""
    with site_of(request).database.change(caller_of(request).who) as change:
        yield change


def _allowed(request: Request, wanted: SecurityScopes, _: Annotated[object, Depends(_BEARER)]) -> None:
    """Refuse who may not do this."""
    token = caller_of(request).token
    for scope in wanted.scopes:
        if token is not None and not token.allows(scope):
            raise HTTPException(403, f"token {token.name}: is not for this; it needs the scope {scope}")


def require_here(request: Request, what: str) -> None:
    """Refuse what a token could use to become more than it is. Raises HTTPException."""
    if caller_of(request).token is not None:
        raise HTTPException(403, f"{what}: only at the gateway itself, by `wgpy gateway` or the unix socket")


def keep_administrators(request: Request, what: str, *groups: Iterable[str]) -> None:
    """Refuse a token that would make, change or remove an administrator. Raises HTTPException.

    `groups` are those that somebody is in, or may come to be in by `what`, before the change and after it.
    """
    if any(site_of(request).service.endpoint.admin_group in each for each in groups):
        require_here(request, f"{what}, as it is about administrators")


def keep_administrator(request: Request, connection: Connection, name: str) -> None:
    """Refuse a token that would do something to an administrator. Raises HTTPException, and Missing for no user."""
    keep_administrators(request, f"user {name}", users.find(connection, name).groups)


READ: Final[Any] = Security(_allowed, scopes=["read"])
WRITE: Final[Any] = Security(_allowed, scopes=["write"])
CREDENTIALS: Final[Any] = Security(_allowed, scopes=["credentials"])
SIGN_IN: Final[Any] = Security(_allowed, scopes=["sign-in"])
BACKUP: Final[Any] = Security(_allowed, scopes=["backup"])


def _find(request: Request, text: str) -> Token | None:
    site = site_of(request)
    wall = site.wall()
    with site.database.read() as connection:
        token = tokens.find_by_text(connection, text, wall)
    if token and token.is_seen_late(wall):
        with suppress(WgpyError), site.database.change(token.name) as change:  # a full disk, which readers do not mind
            tokens.seen(change, token)
    return token


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
