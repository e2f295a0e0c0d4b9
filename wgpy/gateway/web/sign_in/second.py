"""The second factor, after a right password: a code of an authenticator app, a recovery code, or a passkey."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from wgpy.gateway.store import credentials, passkeys
from wgpy.gateway.web.pages import redirect, render
from wgpy.gateway.web.sign_in import factors, half
from wgpy.gateway.web.sign_in.half import Half
from wgpy.gateway.web.sign_in.pages import log, throttled
from wgpy.gateway.web.site import address_of, site_of


def show(request: Request) -> Response:
    return _page(request, half.require(request))


def with_code(request: Request, form: dict[str, str]) -> Response:
    """Check a code. Wrong ones count as wrong passwords do: there are only a million codes."""
    found, site = half.require(request), site_of(request)
    account = found.user.casefold()
    if refused := throttled(request, account):
        return _page(request, found, *refused)
    with site.database.change(f"user {found.user}") as change:
        proof = factors.proved_by_code(change, found.user, form.get("code", ""), site.wall())
        cookie, said = half.complete(change, request, found, proof) if proof else ("", "")
        left = credentials.find(change.connection, found.user)
    if not proof:
        log.warning("sign-in of %s from %s refused: wrong code", found.user, address_of(request))
        return _page(request, found, factors.WRONG_CODE, 403)
    site.throttle.succeeded(account, address_of(request), time.monotonic())
    if proof == "recovery code" and left:
        said = f"You have {left.recovery} recovery codes left. {said}"
    return half.finish(redirect(found.then, said), cookie)


def with_passkey(request: Request, form: dict[str, str]) -> Response:
    """Check what a passkey of this user has signed."""
    found, site = half.require(request), site_of(request)
    if refused := throttled(request, None):
        return _page(request, found, *refused)
    if (proof := factors.asserted(request, form, found.user)) is None:
        return _page(request, found, factors.NO_PASSKEY, 403)
    with site.database.change(f"user {found.user}") as change:
        if not factors.used(change, proof):
            return _page(request, found, factors.NO_PASSKEY, 403)
        cookie, said = half.complete(change, request, found, "passkey")
    site.throttle.succeeded(None, address_of(request), time.monotonic())
    return half.finish(redirect(found.then, said), cookie)


def _page(request: Request, found: Half, error: str = "", status: int = 200) -> Response:
    site = site_of(request)
    with site.database.read() as connection:
        own = passkeys.find_all(connection, found.user)
        known = credentials.find(connection, found.user)
    return render(
        request, "sign_in/second.html", status=status, error=error, name=found.user,
        has_app=bool(known and known.has_totp), passkey=factors.to_assert(site, own) if own else None,
    )  # fmt: skip
