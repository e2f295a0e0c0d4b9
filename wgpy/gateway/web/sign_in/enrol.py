"""Setting up a second factor, after a right password of somebody who has none and needs one."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from wgpy.gateway.store import credentials
from wgpy.gateway.store.database import Change
from wgpy.gateway.web.pages import redirect, render
from wgpy.gateway.web.sign_in import factors, half
from wgpy.gateway.web.sign_in.half import Half
from wgpy.gateway.web.site import site_of


def show(request: Request) -> Response:
    return _page(request, half.require(request))


def totp(request: Request, form: dict[str, str]) -> Response:
    """Set up the app whose code was typed, sign in, and show the recovery codes."""
    found = half.require(request)
    with site_of(request).database.change(f"user {found.user}") as change:
        _check_has_none(change, found)
        codes = factors.add_app(change, request, form, found.user)
        cookie, said = half.complete(change, request, found, "totp") if codes else ("", "")
    if not codes:
        return _page(request, found, form.get("ticket", ""), factors.WRONG_CODE, 403)
    shown = render(request, "sign_in/recovery.html", codes=codes, said=said, then=found.then)
    return half.finish(shown, cookie)


def passkey(request: Request, form: dict[str, str]) -> Response:
    """Add the passkey that was made, and sign in."""
    found = half.require(request)
    with site_of(request).database.change(f"user {found.user}") as change:
        _check_has_none(change, found)
        is_made = factors.add_passkey(change, request, form, found.user)
        cookie, said = half.complete(change, request, found, "passkey") if is_made else ("", "")
    if not is_made:
        return _page(request, found, "", factors.NOT_MADE, 403)
    return half.finish(redirect(found.then, said), cookie)


def _check_has_none(change: Change, found: Half) -> None:
    """Who knows only a password may not add a second factor to an account that has one. Raises HTTPException."""
    if credentials.has_second_factor(change.connection, found.user):
        raise HTTPException(303, "prove the second factor first", {"Location": "/sign-in/second"})


def _page(request: Request, found: Half, ticket: str = "", error: str = "", status: int = 200) -> Response:
    site = site_of(request)
    with site.database.change(f"user {found.user}") as change:
        _check_has_none(change, found)
        question = factors.to_create(change, site, found.user)
    return render(
        request, "sign_in/enrol.html", status=status, error=error, name=found.user,
        app=factors.new_app(site, found.user, ticket), passkey=question,
    )  # fmt: skip
