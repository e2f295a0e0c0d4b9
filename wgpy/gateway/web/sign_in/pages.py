"""The sign-in page: a name and a password, a passkey, or a button of a directory; and signing out."""

from __future__ import annotations

import logging
import time
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from wgpy.errors import ControlError
from wgpy.gateway.identity.passwords import Busy
from wgpy.gateway.policy.people import LOCAL
from wgpy.gateway.store import credentials, endpoint, users
from wgpy.gateway.web import cookies, logins
from wgpy.gateway.web.pages import redirect, render, time_left
from wgpy.gateway.web.security import COOKIE
from wgpy.gateway.web.sign_in import away, factors, half, methods
from wgpy.gateway.web.site import address_of, site_of

log: Final = logging.getLogger("wgpy.gateway")
WRONG: Final = "The name or the password is wrong."
BUSY: Final = "Too many people are signing in at this moment. Try again in a few seconds."
DOWN: Final = "Signing in does not work at this moment. Try again in a minute."
ELSEWHERE: Final = "You are known by the directory {}: sign in by that, because a passkey alone is not enough."
_LONGEST_NAME: Final = 255


def show(request: Request) -> Response:
    """The sign-in page. `?next=/path` says where to go on to."""
    return page(request, request.query_params.get("next", "/"))


def with_password(request: Request, form: dict[str, str]) -> Response:
    """Check a name and a password. Every answer is the same whether somebody of that name exists or not."""
    site, then = site_of(request), logins.local_path(form.get("next", "/"))
    name, password = form.get("name", "").strip()[:_LONGEST_NAME], form.get("password", "")
    account = name.casefold()  # directories take names in any case
    if refused := throttled(request, account):
        return page(request, then, name, *refused)
    try:
        person = methods.check_password(site, name, password)
    except ControlError as error:
        site.throttle.succeeded(account, address_of(request), time.monotonic(), wholly=False)  # it was no wrong attempt
        log.warning("sign-in of %a from %s: %s", name, address_of(request), error)
        return page(request, then, name, BUSY if isinstance(error, Busy) else DOWN, 503)
    if person is None:
        log.warning("sign-in of %a from %s refused: wrong name or password", name, address_of(request))
        return page(request, then, name, WRONG, 403)
    with site.database.change(f"user {person.name}") as change:
        user = logins.take_in(change, person)
        needs_more = credentials.has_second_factor(change.connection, user.name) or (
            person.source == LOCAL and endpoint.find(change.connection).second_factor
        )
        cookie, said = ("", "") if needs_more else logins.admit(change, request, user, "password")
    site.throttle.succeeded(account, address_of(request), time.monotonic(), wholly=not needs_more)
    if needs_more:
        return half.go_on(request, user, "password", then)
    return logins.keep(redirect(then, said), cookie)


def with_passkey(request: Request, form: dict[str, str]) -> Response:
    """Sign a local user in by a passkey alone, which says whose it is.

    For people of a directory it is only a second factor: the directory may have disabled them, and is asked first.
    """
    site, then = site_of(request), logins.local_path(form.get("next", "/"))
    if refused := throttled(request, None):
        return page(request, then, "", *refused)
    if (proof := factors.asserted(request, form)) is None:
        return page(request, then, "", factors.NO_PASSKEY, 403)
    with site.database.change(f"user {proof.user}") as change:
        if not factors.used(change, proof):
            return page(request, then, "", factors.NO_PASSKEY, 403)
        user = users.find(change.connection, proof.user)
        if user.source != LOCAL:
            return page(request, then, "", ELSEWHERE.format(user.source), 403)
        cookie, said = logins.admit(change, request, user, "passkey")
    site.throttle.succeeded(None, address_of(request), time.monotonic())
    return logins.keep(redirect(then, said), cookie)


def sign_out(request: Request, form: dict[str, str]) -> Response:
    """Sign this browser out."""
    login = logins.current_login(request)
    if login:
        with site_of(request).database.change(f"user {login.user}") as change:
            logins.end(change, request)
    response = redirect(logins.SIGN_IN, "You are signed out.")
    cookies.forget(response, COOKIE)
    if login:
        away.remember_for_sign_out(request, response, login.user)
    return response


def throttled(request: Request, account: str | None) -> tuple[str, int] | None:
    """Count an attempt. What to say, and the status, if there were too many; None if it may go on."""
    wait = site_of(request).throttle.attempt(account, address_of(request), time.monotonic())
    if not wait:
        return None
    # Not a warning: those before it were, and nobody should be able to fill the log.
    log.debug("sign-in of %a from %s refused: too many attempts", account, address_of(request))
    return f"There were too many attempts. Try again in {time_left(wait)}.", 429


def page(request: Request, then: str, name: str = "", error: str = "", status: int = 200) -> Response:
    """The sign-in page, with what went wrong."""
    site = site_of(request)
    return render(
        request, "sign_in/sign_in.html", status=status, error=error, name=name,
        next=logins.local_path(then), passkey=factors.to_assert(site, ()), buttons=methods.buttons(site),
        still_at=away.signed_out_of(request),
    )  # fmt: skip
