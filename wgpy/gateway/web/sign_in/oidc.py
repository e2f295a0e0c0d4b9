"""Signing in by OpenID Connect: to the provider and back, and signing out there as well.

An answer is good only in the browser that asked for it (`away`). To the provider the browser goes by links and not by
forms, because `form-action 'self'` of the Content-Security-Policy also holds for where a form's answer leads.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.identity.oidc import Attempt, Provider
from wgpy.gateway.policy.oidc import callback_path
from wgpy.gateway.store import directories
from wgpy.gateway.web import logins
from wgpy.gateway.web.pages import redirect
from wgpy.gateway.web.sign_in import away, pages
from wgpy.gateway.web.site import address_of, require_url, site_of

log: Final = logging.getLogger("wgpy.gateway")

_TROUBLE: Final = "{} cannot be asked at this moment. Try again in a minute."


async def start(request: Request) -> Response:
    """Send the browser to the provider."""
    name = request.path_params["name"]
    then = logins.local_path(request.query_params.get("next", "/"))
    provider = await _provider(request)
    try:
        url, attempt = await provider.begin(_callback(request))
    except ControlError as error:
        log.error("sign-in from %s: %s", address_of(request), error)
        return await _sign_in_page(request, then, _TROUBLE.format(name), 503)
    response = RedirectResponse(url, 303)
    away.keep(request, response, away.BACK, attempt=asdict(attempt), then=then)
    return response


async def finish(request: Request) -> Response:
    """The browser comes back from the provider, with an answer that anybody may have written."""
    response = await _finish(request)
    return away.forget(response)


async def _finish(request: Request) -> Response:
    site, name = site_of(request), request.path_params["name"]
    brought = away.read(request, away.BACK)
    if brought is None:
        return await _sign_in_page(request, "/", "This took too long, or began in another browser. Sign in again.", 403)
    then = brought["then"]
    if refused := pages.throttled(request, None):
        return await _sign_in_page(request, then, *refused)
    provider = await _provider(request)
    try:
        attempt = Attempt(**brought["attempt"])
        found = await provider.finish(attempt, dict(request.query_params), _callback(request))
        proof = f"directory {name}"
        response = await run_in_threadpool(logins.begin, request, found.person, proof, then, found.token)
    except ControlError as error:
        log.error("sign-in from %s: %s", address_of(request), error)
        return await _sign_in_page(request, then, _TROUBLE.format(name), 503)
    except ConfigError as error:
        log.warning("sign-in from %s refused: %s", address_of(request), error)
        return await _sign_in_page(request, then, f"{str(error)[:1].upper()}{str(error)[1:]}.", 403)
    except HTTPException as error:
        return await _sign_in_page(request, then, error.detail, error.status_code)
    site.throttle.succeeded(None, address_of(request), time.monotonic())
    return response


async def sign_out(request: Request) -> Response:
    """Send the browser of somebody who has signed out of this site to where the provider signs them out."""
    site = site_of(request)
    brought = away.read(request, away.OUT)
    if brought is None or brought["source"] != request.path_params["name"]:
        return redirect(logins.SIGN_IN)
    provider = await _provider(request)

    def token() -> bytes | None:
        with site.database.read() as connection:
            return directories.token(connection, site.database.vault, brought["user"])

    try:
        home = f"{require_url(site.service.endpoint)}{logins.SIGN_IN}"
        url = await provider.sign_out_url(await run_in_threadpool(token), home)
    except ControlError as error:
        log.error("sign-out from %s: %s", address_of(request), error)
        return redirect(logins.SIGN_IN, _TROUBLE.format(request.path_params["name"]))
    return away.forget(RedirectResponse(url, 303) if url else redirect(logins.SIGN_IN))


async def _provider(request: Request) -> Provider:
    """The provider that the path names. Raises HTTPException if there is none of that name."""
    try:
        found = await site_of(request).clients.of(request.path_params["name"])
    except ConfigError:
        found = None
    if not isinstance(found, Provider):
        raise HTTPException(404, "there is no such way to sign in")
    return found


def _callback(request: Request) -> str:
    """The address that the provider sends browsers back to, which is registered there."""
    return f"{require_url(site_of(request).service.endpoint)}{callback_path(request.path_params['name'])}"


async def _sign_in_page(request: Request, then: str, error: str, status: int) -> Response:
    return await run_in_threadpool(pages.page, request, then, "", error, status)
