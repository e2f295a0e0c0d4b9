"""A person's own account: the password, the second factors, and the browsers in which they are signed in."""

from __future__ import annotations

import time
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from wgpy.gateway.identity import passwords
from wgpy.gateway.policy.people import LOCAL
from wgpy.gateway.store import credentials, directories, endpoint, logins, passkeys, users
from wgpy.gateway.store.database import Change
from wgpy.gateway.web import cookies
from wgpy.gateway.web.logins import SIGN_IN, admit, keep, require_fresh, require_login
from wgpy.gateway.web.pages import redirect, render
from wgpy.gateway.web.security import COOKIE
from wgpy.gateway.web.sign_in import factors, methods, set_up
from wgpy.gateway.web.sign_in.pages import throttled
from wgpy.gateway.web.site import address_of, site_of

HERE: Final = "/account"


def show(request: Request) -> Response:
    return _page(request)


def change_password(request: Request, form: dict[str, str]) -> Response:
    """Change the password of somebody who knows the old one, and sign every other browser out.

    The new sign-in counts as a fresh one, so the former has to be: else a password alone would lead to the factors.
    """
    login, site = require_fresh(request), site_of(request)
    if refused := throttled(request, login.user.casefold()):
        return _page(request, *refused)
    if not passwords.check(site.database, site.hasher, login.user, form.get("current", "")):
        return _page(request, "The current password is wrong.", 403)
    site.throttle.succeeded(login.user.casefold(), address_of(request), time.monotonic())
    if why := set_up.refusal(login.user, form):
        return _page(request, why, 400)
    encoded = site.hasher.hash(form["password"])
    with site.database.change(f"user {login.user}") as change:
        credentials.set_password(change, login.user, encoded)
        logins.end_all(change, login.user)
        cookie, _ = admit(change, request, users.find(change.connection, login.user), login.strength)
    return keep(redirect(HERE, "The password is changed, and every other browser is signed out."), cookie)


def factors_page(request: Request, ticket: str = "", error: str = "", status: int = 200) -> Response:
    login, site = require_fresh(request), site_of(request)
    with site.database.change(f"user {login.user}") as change:
        question = factors.to_create(change, site, login.user)
    return render(
        request, "sign_in/factors.html", status=status, error=error, name=login.user,
        app=factors.new_app(site, login.user, ticket), passkey=question,
    )  # fmt: skip


def show_factors(request: Request) -> Response:
    """The page on which a second factor is set up."""
    return factors_page(request)


def add_totp(request: Request, form: dict[str, str]) -> Response:
    """Set up an authenticator app, in the place of a former one, and show new recovery codes."""
    login = require_fresh(request)
    with site_of(request).database.change(f"user {login.user}") as change:
        codes = factors.add_app(change, request, form, login.user)
    if not codes:
        return factors_page(request, form.get("ticket", ""), factors.WRONG_CODE, 403)
    return render(request, "sign_in/recovery.html", codes=codes, said="", then=HERE)


def remove_totp(request: Request, form: dict[str, str]) -> Response:
    login = require_fresh(request)
    with site_of(request).database.change(f"user {login.user}") as change:
        credentials.remove_totp(change, login.user)
        _check_is_left(change, login.user)
    return redirect(HERE, "The authenticator app is removed.")


def add_passkey(request: Request, form: dict[str, str]) -> Response:
    login = require_fresh(request)
    with site_of(request).database.change(f"user {login.user}") as change:
        is_made = factors.add_passkey(change, request, form, login.user)
    return redirect(HERE, "The passkey is added.") if is_made else factors_page(request, "", factors.NOT_MADE, 403)


def remove_passkey(request: Request, form: dict[str, str]) -> Response:
    login = require_fresh(request)
    with site_of(request).database.change(f"user {login.user}") as change:
        passkeys.remove(change, login.user, form.get("id", ""))
        _check_is_left(change, login.user)
    return redirect(HERE, "The passkey is removed.")


def sign_out_everywhere(request: Request, form: dict[str, str]) -> Response:
    """Sign out every browser of this person, this one too."""
    login = require_login(request)
    with site_of(request).database.change(f"user {login.user}") as change:
        number = logins.end_all(change, login.user)
    response = redirect(SIGN_IN, f"You are signed out in {number} browser{'s' if number != 1 else ''}.")
    cookies.forget(response, COOKIE)
    return response


def _check_is_left(change: Change, user: str) -> None:
    """Raises HTTPException, which undoes the change, if a local user would be left without a second factor."""
    if (
        users.find(change.connection, user).source == LOCAL
        and endpoint.find(change.connection).second_factor
        and not credentials.has_second_factor(change.connection, user)
    ):
        raise HTTPException(409, "you need a second factor: set up another one before you remove this one")


def _page(request: Request, error: str = "", status: int = 200) -> Response:
    login, site = require_login(request), site_of(request)
    with site.database.read() as connection:
        user = users.find(connection, login.user)
        found = credentials.find(connection, login.user)
        own = passkeys.find_all(connection, login.user)
        kinds = {each.name: each.kind for each in directories.find_all(connection)}
        every = [each for each in logins.find_all(connection, login.user) if not each.is_over(site.wall())]
    return render(
        request, "sign_in/account.html", status=status, error=error, person=user, is_local=user.source == LOCAL,
        is_asked=user.source == LOCAL or kinds.get(user.source) in methods.PASSWORDS,
        has_password=bool(found and found.password), has_app=bool(found and found.has_totp),
        recovery=found.recovery if found else 0, passkeys=own, logins=every, this=login.id,
        shortest=passwords.SHORTEST, longest=passwords.LONGEST,
    )  # fmt: skip
